"""Most direct notices are plain: a title for some users' inboxes, and nothing that needs a second look.

These are checked by hand, for a small part of what the full check costs. What is not plain, or not right, is left to
the full check, which alone refuses: so both ways give the same answers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from api.access.tokens import is_id
from api.http.requests import json_value
from api.notices.links import is_link
from api.problems import Problem
from api.settings import Limits
from topics.json_text import compact, members

SHORT_CUT_USERS = 100
SEVERITIES = frozenset(("info", "warning", "error", "critical"))
TEXTS = ("title", "text", "link", "data")
_MEMBERS = frozenset(("to", "severity", "entity", *TEXTS))
_LONGEST_LINK = 2_000


class PlainNotice(NamedTuple):
    """One that has passed the check; `body` is the JSON text of what is shown, as it was sent."""

    users: tuple[str, ...]
    severity: str
    entity_type: str | None
    entity_id: str | None
    body: bytes


def plain_notice(text: str, limits: Limits) -> PlainNotice | None:
    """The notice in a JSON text; null for what needs the full check, and for what will be refused there."""
    try:
        given = orjson.loads(text)
        if type(given) is dict and given.get("data") is not None:
            json_value(text)  # as the full check reads it: numbers and nesting have their bounds there
        return _checked(given, text, limits)
    except (ValueError, Problem):
        return None


def _checked(given: Any, text: str, limits: Limits) -> PlainNotice | None:
    if type(given) is not dict or not _MEMBERS.issuperset(given):
        return None
    escapes = "\\" in text
    if escapes and ("\\ud" in text or "\\uD" in text):
        return None
    users, title, severity = _users(given.get("to"), limits.users), given.get("title"), given.get("severity", "info")
    if users is None or type(title) is not str or not 1 <= len(title) <= limits.title_characters:
        return None
    if type(severity) is not str or severity not in SEVERITIES or not _texts_hold(given, text, limits):
        return None
    entity = given.get("entity")
    if entity is None:
        entity_type = entity_id = None
    elif (
        type(entity) is dict
        and len(entity) == 2
        and all(type(entity.get(name)) is str and is_id(entity[name]) for name in ("type", "id"))
    ):
        entity_type, entity_id = entity["type"], entity["id"]
    else:
        return None
    return PlainNotice(users, severity, entity_type, entity_id, _body(given, text, escapes=escapes))


def _users(to: Any, most: int) -> tuple[str, ...] | None:
    if type(to) is not list or not 1 <= len(to) <= min(most, SHORT_CUT_USERS):
        return None
    for user in to:
        if type(user) is not str or not is_id(user):
            return None
    return tuple(dict.fromkeys(to)) if len(to) > 1 else (to[0],)


def _texts_hold(given: dict[str, Any], text: str, limits: Limits) -> bool:
    shown, link, data = given.get("text", ""), given.get("link"), given.get("data")
    if type(shown) is not str or (len(shown) * 4 > limits.text and len(shown.encode()) > limits.text):
        return False
    if link is not None and not (type(link) is str and len(link) <= _LONGEST_LINK and is_link(link)):
        return False
    if data is None:
        return True
    return type(data) is dict and (len(text) * 4 <= limits.data or len(members(text)["data"].encode()) <= limits.data)


def _body(given: dict[str, Any], text: str, *, escapes: bool) -> bytes:
    """The members that are shown, each as it was written: a text without escapes stands in its quotes as it is."""
    if escapes or given.get("data") is not None:
        raw = members(text)
        parts = [f'"{name}":{compact(raw[name])}' for name in TEXTS if name in raw]
    else:
        parts = [
            f'"{name}":"{given[name]}"' if given[name] is not None else f'"{name}":null'
            for name in TEXTS
            if name in given
        ]
    return ("{" + ",".join(parts) + "}").encode()
