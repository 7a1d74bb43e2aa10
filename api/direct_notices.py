"""Direct notices: checked, their lanes decided, and said.

A condition (with a `key`), or one for many, goes to `notice-requests` as one record and is fanned out from there. Any
other takes the short cut: its notices go straight to `notices`, one for each person, and it is answered when all are
acknowledged; a repeat completes what was left, for the ids are the same on both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from api.lanes import resolve
from api.problems import Problem, over, too_large
from api.proposals import stamp
from api.protocol import first_fault
from api.requests import json_object
from api.sending import begin, landed, put
from api.tokens import is_id
from projections.fan_out import direct_notices
from projections.sql.views import recipients
from topics.catalogue import NOTICE_REQUESTS, NOTICES
from topics.durations import LONGEST_MS
from topics.events import Lane, NoticeRaised, NoticeRequested, NoticeResolved
from topics.json_text import compact, joined, members
from topics.produce import Placed

if TYPE_CHECKING:
    from api.gateway import Gateway

User = Annotated[str, Field(min_length=1, max_length=200)]
SHORT_CUT_USERS = 100
_TEXTS = ("title", "text", "link", "data")


class EntityRef(BaseModel):
    """What the notice is about."""

    model_config = ConfigDict(extra="forbid")
    type: User
    id: User


class DirectNotice(BaseModel):
    """A direct notice as it is sent."""

    model_config = ConfigDict(extra="forbid")
    to: list[User] = Field(min_length=1)
    title: str = Field(min_length=1)
    text: str = ""
    severity: Literal["info", "warning", "error", "critical"] = "info"
    link: str | None = Field(default=None, max_length=2_000)
    key: str | None = Field(default=None, min_length=1, max_length=200)
    entity: EntityRef | None = None
    data: dict[str, Any] | None = None
    channel: dict[str, list[Annotated[str, Field(min_length=1, max_length=500)]]] | None = None
    forward_after: float | None = Field(default=None, ge=0, le=LONGEST_MS / 1000)

    @field_validator("to")
    @classmethod
    def _to(cls, given: list[str]) -> list[str]:
        if not all(is_id(user) for user in given):
            raise ValueError("user ids have no control characters")
        return list(dict.fromkeys(given))

    @field_validator("link")
    @classmethod
    def _link(cls, given: str | None) -> str | None:
        if given is not None and not is_link(given):
            raise ValueError("a link is http, https, or a path that begins with one slash")
        return given


@dataclass(frozen=True, slots=True)
class Requested:
    """`ids`: user to the id of that user's notice; where it stands: the offsets that follow it on `topic`."""

    ids: dict[str, str]
    topic: str
    following: dict[int, int]


async def request(gateway: Gateway, subject: str, request_key: str, text: str) -> Requested:
    """Send one direct notice of `subject`. Problem."""
    asked = _checked(gateway, text)
    default_ms = round((gateway.settings.forward_after if asked.forward_after is None else asked.forward_after) * 1000)
    if asked.channel is None:
        lanes = await _own_lanes(gateway, asked.to, default_ms)
    else:
        lanes = await resolve(gateway, asked.channel, None, default_ms)
    raw = members(text)
    event = NoticeRequested(
        **stamp(gateway),
        subject=subject,
        key=asked.key,
        request_key=request_key,
        users=tuple(asked.to),
        lanes=lanes,
        forward="",
        severity=asked.severity,
        entity_type=asked.entity.type if asked.entity else None,
        entity_id=asked.entity.id if asked.entity else None,
        body=joined({name: compact(raw[name]) for name in _TEXTS if name in raw}).encode(),
    )
    outs = direct_notices(event, {"producer": event.producer, "occurred_at": event.occurred_at, "caused_by": ()})
    raised = [o.event for o in outs if isinstance(o.event, NoticeRaised)]
    ids = {e.user: e.notice_id for e in raised if e.inbox}
    if asked.key is not None or len(raised) > SHORT_CUT_USERS:
        placed = await put(gateway, NOTICE_REQUESTS, _key(subject, asked.key), event)
        return Requested(ids, NOTICE_REQUESTS, {placed.partition: placed.offset + 1})
    sent = [await begin(gateway, NOTICES, e.user, e) for e in raised]
    following: dict[int, int] = {}
    for placed in await asyncio.gather(*map(landed, sent)):
        following[placed.partition] = max(following.get(placed.partition, 0), placed.offset + 1)
    return Requested(ids, NOTICES, following)


async def resolve_condition(gateway: Gateway, subject: str, text: str) -> Placed:
    """The condition `key` of `subject` is over. Problem."""
    value = json_object(text)
    key = value.get("key")
    if not isinstance(key, str) or not is_id(key) or set(value) != {"key"}:
        raise Problem("bad_field", "key: the key that the notice was sent with, and nothing else")
    event = NoticeResolved(**stamp(gateway), subject=subject, key=key)
    return await put(gateway, NOTICE_REQUESTS, _key(subject, key), event)


def is_link(text: str) -> bool:
    """Whether a page may follow it: nothing that runs, nothing that leaves by a trick."""
    if not text.isprintable() or text.strip() != text:
        return False
    if text.startswith("/"):
        return not text.startswith(("//", "/\\"))
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.netloc)


def _checked(gateway: Gateway, text: str) -> DirectNotice:
    value, limits = json_object(text), gateway.settings.limits
    try:
        asked = DirectNotice.model_validate(value)
    except ValidationError as error:
        raise Problem("bad_field", first_fault(error)) from error
    if len(asked.to) > limits.users:
        raise over("users", limits.users, "users in one notice")
    if len(asked.title) > limits.title_characters:
        raise over("title_characters", limits.title_characters, "characters in a title")
    try:
        if len(asked.text.encode()) > limits.text:
            raise too_large("text", limits.text, "A text")
        asked.title.encode()
    except UnicodeEncodeError as error:
        raise Problem("bad_field", "Half a surrogate pair is no text.") from error
    if len(members(text).get("data", "").encode()) > limits.data:
        raise too_large("data", limits.data, "The data of a notice")
    if asked.key is not None and not is_id(asked.key):
        raise Problem("bad_field", "key: no control characters")
    return asked


async def _own_lanes(gateway: Gateway, users: Sequence[str], after_ms: int) -> tuple[Lane, ...]:
    """Every user's own addresses; whoever is no recipient has only the inbox."""
    lanes: list[Lane] = []
    for user, body in (await gateway.database.read(recipients.bodies, users)).items():
        addresses = json_object(body).get("addresses")
        known = [c for c in addresses if c in gateway.settings.channels] if isinstance(addresses, dict) else []
        lanes += [Lane(channel, channel, "recipient", user, after_ms) for channel in known]
    return tuple(lanes)


def _key(subject: str, key: str | None) -> str:
    return subject if key is None else f"{subject}/{key}"
