"""ETags of configs and recipients, and the preconditions that a request makes with them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from starlette.requests import Request

from api.problems import Problem

_etag = re.compile(r'"v(\d{1,18})"')


@dataclass(frozen=True, slots=True)
class Preconditions:
    """`version`: must stand; `exists`: some version must; `absent`: none may."""

    version: int | None = None
    exists: bool = False
    absent: bool = False


def etag(version: int) -> str:
    """The ETag of a version."""
    return f'"v{version}"'


def preconditions(request: Request) -> Preconditions:
    """From If-Match and If-None-Match. Problem `bad_etag`; an ETag that is not ours holds for no version (-1)."""
    match, none = request.headers.get("if-match"), request.headers.get("if-none-match")
    if match is not None and none is not None:
        raise Problem("bad_etag", "Send If-Match or If-None-Match, not both.")
    if none is not None:
        if none.strip() != "*":
            raise Problem("bad_etag", "If-None-Match is understood as * only: make it, unless it is there.")
        return Preconditions(absent=True)
    if match is None:
        return Preconditions()
    if match.strip() == "*":
        return Preconditions(exists=True)
    if "," in match:
        raise Problem("bad_etag", "If-Match takes one ETag.")
    found = _etag.fullmatch(match.strip())
    return Preconditions(version=int(found[1]) if found else -1)
