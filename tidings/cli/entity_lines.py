"""Changes of entities as people write them: one body on stdin, or one JSON object a line; each is checked before it
is sent.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.access.tokens import is_id
from api.settings import Limits
from topics.json_text import compact, members, parse

OPS = ("created", "updated", "deleted")
MEMBERS = frozenset({"id", "op", "body", "version", "at"})
LARGEST_VERSION = 2**63 - 1


class BadChange(ValueError):
    """What is wrong with it, for people."""


@dataclass(frozen=True, slots=True)
class Change:
    """`body` is JSON text, null for a deletion; `at` ms since 1970."""

    id: str
    op: str
    body: str | None
    version: int | None = None
    at: int | None = None


def of_line(line: str) -> Change:
    """One line of NDJSON. BadChange."""
    value = _object(line, "a change")
    if unknown := sorted(set(value) - MEMBERS):
        raise BadChange(f"{unknown[0]!r} is no member of a change ({', '.join(sorted(MEMBERS))})")
    entity_id, op = value.get("id"), value.get("op", "updated")
    if not isinstance(entity_id, str):
        raise BadChange("`id` is a text")
    return change(entity_id, op, members(line).get("body"), value.get("version"), value.get("at"))


def change(entity_id: str, op: Any, body: str | None, version: Any = None, at: Any = None) -> Change:
    """A change, checked. BadChange."""
    if not is_id(entity_id):
        raise BadChange("an id has 1 to 200 characters and no control characters")
    if op not in OPS:
        raise BadChange(f"`op` is one of {', '.join(OPS)}")
    if version is not None and (
        isinstance(version, bool) or not isinstance(version, int) or not 0 <= version <= LARGEST_VERSION
    ):
        raise BadChange("`version` is a whole number, not negative")
    if op == "deleted":
        return Change(entity_id, op, None, version, _time(at))
    _object(body or "", "the body")
    limit = Limits().entity_body
    if len((body or "").encode()) > limit:
        raise BadChange(f"the body is larger than entity_body, {limit} bytes")
    return Change(entity_id, op, compact(body or ""), version, _time(at))


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        value = parse(text)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadChange(f"{what} holds half a character (a lone surrogate)") from error
    except (ValueError, RecursionError) as error:
        raise BadChange(f"{what} is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadChange(f"{what} is a JSON object")
    return value


def _time(given: Any) -> int | None:
    if given is None or (isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 253_402_300_800_000):
        return given
    try:
        found = datetime.fromisoformat(given)
    except (TypeError, ValueError):
        found = None
    if found is None or found.tzinfo is None:
        raise BadChange("`at` is a time as in RFC 3339, or milliseconds since 1970")
    return max(0, int(found.timestamp() * 1000))
