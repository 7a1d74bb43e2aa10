"""Direct notices: checked, their lanes decided, and said.

A condition (with a `key`), or one for many, goes to `notice-requests` as one record and is fanned out from there. Any
other takes the short cut: its notices go straight to `notices`, one for each person, and it is answered when all are
acknowledged; a repeat completes what was left, for the ids are the same on both ways.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from api.access.tokens import is_id
from api.http.requests import json_object
from api.notices.intake import Answer, Said, raised_by
from api.notices.lanes import own_lanes, resolve
from api.notices.links import is_link
from api.notices.plain import SHORT_CUT_USERS, TEXTS, plain_notice
from api.problems import Problem, over, too_large, valid
from api.proposals import stamp
from api.sending import put, writable
from api.settings import Limits
from projections.sql.views import recipients
from topics.catalogue import NOTICE_REQUESTS
from topics.durations import LONGEST_MS
from topics.events import Lane, NoticeRequested, NoticeResolved
from topics.json_text import compact, joined, members
from topics.produce import Placed

if TYPE_CHECKING:
    from api.gateway import Gateway

User = Annotated[str, Field(min_length=1, max_length=200)]


class EntityRef(BaseModel):
    """What the notice is about."""

    model_config = ConfigDict(extra="forbid")
    type: User
    id: User

    @field_validator("type", "id")
    @classmethod
    def _no_control_characters(cls, given: str) -> str:
        if not is_id(given):
            raise ValueError("ids have no control characters")
        return given


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
    forward_after: float | None = Field(default=None, strict=True, ge=0, le=LONGEST_MS / 1000)

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


class ConditionOver(BaseModel):
    """The key that a condition's notice was sent with."""

    model_config = ConfigDict(extra="forbid", strict=True)
    key: User

    @field_validator("key")
    @classmethod
    def _no_control_characters(cls, given: str) -> str:
        if not is_id(given):
            raise ValueError("no control characters")
        return given


def request(gateway: Gateway, subject: str, request_key: str, text: str) -> Awaitable[Said]:
    """Send one direct notice of `subject`; a plain one is on its way at once, without a task. Problem."""
    plain = plain_notice(text, gateway.settings.limits) if gateway.writable.is_set() else None
    if plain is None:
        return _fully(gateway, subject, request_key, text)
    return _answered(lambda answer: gateway.intake.offer(plain, subject, request_key, answer))


async def request_all(gateway: Gateway, subject: str, asked: Sequence[tuple[str, str]]) -> list[Said | Problem]:
    """As `request` for several (request key, text): what became of each. The plain ones share one future."""
    found: list[Said | Problem | None] = [None] * len(asked)
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left, rest = len(asked), []

    def answering(number: int) -> Answer:
        def answer(what: Said | Problem) -> None:
            nonlocal left
            found[number] = what
            left -= 1
            if not left and not done.done():
                done.set_result(None)

        return answer

    for number, (key, text) in enumerate(asked):
        plain = plain_notice(text, gateway.settings.limits) if gateway.writable.is_set() else None
        if plain is None:
            rest.append(number)
        else:
            gateway.intake.offer(plain, subject, key, answering(number))
    fully = await asyncio.gather(*(_fully(gateway, subject, *asked[n]) for n in rest), return_exceptions=True)
    for number, what in zip(rest, fully, strict=True):
        if isinstance(what, BaseException) and not isinstance(what, Problem):
            raise what
        answering(number)(what)
    if asked:
        await done
    return [what for what in found if what is not None]


async def _fully(gateway: Gateway, subject: str, request_key: str, text: str) -> Said:
    asked = checked(text, gateway.settings.limits)
    default_ms = round((gateway.settings.forward_after if asked.forward_after is None else asked.forward_after) * 1000)
    if asked.channel is None:
        lanes = await _own_lanes(gateway, asked.to, default_ms)
    else:
        lanes = await resolve(gateway, asked.channel, None, default_ms)
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
        body=shown(text),
    )
    raised = raised_by(event)
    if asked.key is not None or len(raised) > SHORT_CUT_USERS:
        placed = await put(gateway, NOTICE_REQUESTS, _key(subject, asked.key), event)
        ids = {e.user: e.notice_id for e in raised if e.inbox}
        return Said(ids, {placed.partition: placed.offset + 1}, NOTICE_REQUESTS)
    await writable(gateway)
    return await _answered(lambda answer: gateway.intake.say(raised, answer))


def _answered(ask: Callable[[Answer], None]) -> asyncio.Future[Said]:
    done: asyncio.Future[Said] = asyncio.get_running_loop().create_future()

    def answer(what: Said | Problem) -> None:
        if not done.done():
            if isinstance(what, Problem):
                done.set_exception(what)
            else:
                done.set_result(what)

    ask(answer)
    return done


async def resolve_condition(gateway: Gateway, subject: str, text: str) -> Placed:
    """The condition `key` of `subject` is over. Problem."""
    ended = valid(ConditionOver, json_object(text))
    event = NoticeResolved(**stamp(gateway), subject=subject, key=ended.key)
    return await put(gateway, NOTICE_REQUESTS, _key(subject, ended.key), event)


def shown(text: str) -> bytes:
    """The members of a notice that people see, as they were written."""
    raw = members(text)
    return joined({name: compact(raw[name]) for name in TEXTS if name in raw}).encode()


def checked(text: str, limits: Limits) -> DirectNotice:
    """The notice in a JSON text. Problem."""
    asked = valid(DirectNotice, json_object(text))
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
    return own_lanes(await gateway.database.read(recipients.bodies, users), gateway.settings.channels, after_ms)


def _key(subject: str, key: str | None) -> str:
    return subject if key is None else f"{subject}/{key}"
