"""The id of whatever is being answered: an HTTP request, or a live connection for as long as it lasts. It stands in the
answer's X-Request-Id and in every log line about it.
"""

from __future__ import annotations

import re
import secrets
from contextvars import ContextVar

HEADER = "x-request-id"
current: ContextVar[str | None] = ContextVar("request_id", default=None)
_safe = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(given: str | None) -> str:
    """The caller's own id if it is one that no log minds, else a new one."""
    return given if given is not None and _safe.fullmatch(given) else secrets.token_hex(8)
