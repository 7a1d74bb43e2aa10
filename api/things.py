"""What configs and recipients have in common over HTTP: an ETag, preconditions decided on the log, PATCH that keeps
the texts.

A kind says how its text is checked and proposed; the way through the log is the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from api.documents.answers import Decided
from api.documents.operations import (
    AT_LEAST,
    CURSOR,
    IF_MATCH,
    IF_NONE_MATCH,
    LIMIT,
    MERGE_PATCH,
    PAGES,
    READS,
    SENDS,
    Operation,
    json_of,
)
from api.gateway import Gateway
from api.http.cursors import decode_id, encode_id
from api.http.etags import Preconditions, etag, preconditions
from api.http.merge import merged
from api.http.requests import (
    at_least,
    body_text,
    caller,
    gateway_of,
    json_object,
    listed,
    object_response,
    page_limit,
    path_id,
)
from api.live.frames import quoted
from api.problems import Problem
from api.proposals import Accepted, Refused, propose
from projections.sql.views.alert_configs import Thing
from topics.events import ConfigProposed, RecipientProposed
from topics.json_text import compact, members

OURS = ("id", "etag", "version", "position", "reports")  # what answers add is not taken back
TRIES = 10


@dataclass(frozen=True, slots=True)
class Change:
    """What is wanted: `op` create, replace or delete; `text` the whole new body, empty for a delete."""

    id: str
    op: str
    based_on: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of thing; `proposal` checks a change and makes the event, `added` gives further members of answers."""

    topic: str
    scope: str
    one: Callable[[Gateway, str], Awaitable[Thing | None]]
    proposal: Callable[[Gateway, Change], Awaitable[ConfigProposed | RecipientProposed]]
    added: Callable[[Gateway, list[str]], Awaitable[dict[str, dict[str, str]]]]
    takes: type
    shown: type
    page: type


def operations(what: str, kind: Kind) -> dict[str, Operation]:
    """What the calls of a kind do, by their names here; `what` names one of them for people."""
    scope, matches = kind.scope, (IF_MATCH, IF_NONE_MATCH)
    sends = (*SENDS, "store_away", "unknown_channel", "unknown_recipient")
    changes = (*sends, "bad_etag", "version_conflict")
    changed, made = {200: Decided, 202: Decided}, {200: Decided, 201: Decided, 202: Decided}
    takes = json_of(kind.takes)
    return {
        "lists": Operation(
            f"All, in the order of their ids: {what}",
            {200: kind.page},
            scope=scope,
            params=(LIMIT, CURSOR, AT_LEAST),
            problems=PAGES,
        ),
        "get": Operation(
            f"Read {what}",
            {200: kind.shown},
            scope=scope,
            params=(AT_LEAST,),
            problems=(*READS, "not_found", "bad_field"),
            etag=True,
        ),
        "create": Operation(
            f"Make {what}",
            {201: Decided, 202: Decided},
            scope=scope,
            takes=takes,
            size="http_body",
            problems=(*sends, "exists"),
        ),
        "put": Operation(
            f"Replace or make {what}",
            made,
            scope=scope,
            takes=takes,
            size="http_body",
            params=matches,
            problems=changes,
        ),
        "patch": Operation(
            f"Change members of {what}, by RFC 7396",
            changed,
            scope=scope,
            takes={MERGE_PATCH: dict[str, Any]},
            size="http_body",
            params=(IF_MATCH,),
            problems=(*changes, "not_found"),
        ),
        "delete": Operation(
            f"Delete {what}", changed, scope=scope, params=(IF_MATCH,), problems=(*changes, "not_found")
        ),
    }


async def get(request: Request, kind: Kind) -> Response:
    """The stored text with its ETag."""
    caller(request, kind.scope)
    await at_least(request)
    gateway, thing_id = gateway_of(request), path_id(request)
    position = await position_of(gateway, kind)
    thing = await kind.one(gateway, thing_id)
    if thing is None:
        raise Problem("not_found")
    added = await kind.added(gateway, [thing_id])
    parts = _shown(thing) | added.get(thing_id, {}) | {"position": quoted(position)}
    return object_response(parts, headers={"etag": etag(thing.version)})


async def lists(request: Request, kind: Kind, page: Callable[[str, int], Awaitable[list[Thing]]]) -> Response:
    """A page in the order of ids."""
    caller(request, kind.scope)
    await at_least(request)
    gateway, limit = gateway_of(request), page_limit(request, 200)
    cursor = request.query_params.get("cursor")
    position = await position_of(gateway, kind)
    found = await page(decode_id(cursor) if cursor else "", limit + 1)
    things = found[:limit]
    added = await kind.added(gateway, [t.id for t in things])
    texts = [_text(_shown(t) | added.get(t.id, {})) for t in things]
    following = quoted(encode_id(things[-1].id)) if len(found) > limit else "null"
    return object_response({"items": listed(texts), "next": following, "position": quoted(position)})


async def create(request: Request, kind: Kind, thing_id: str, text: str) -> Response:
    """Make it; 409 if the id is taken."""
    gateway = gateway_of(request)
    wanted = Change(thing_id, "create", None, text)
    answer = await propose(gateway, await kind.proposal(gateway, wanted))
    return _answer(answer, wanted.id, made=True)


async def put(request: Request, kind: Kind) -> Response:
    """Replace it, or make it, as the preconditions allow."""
    caller(request, kind.scope)
    gateway, thing_id, asked = gateway_of(request), path_id(request), preconditions(request)
    text = await text_of(request)
    answer: Accepted | Refused = Refused("missing", None)
    made = asked.absent
    for _ in range(TRIES):
        op, based_on = "create" if asked.absent else "replace", asked.version
        if asked.exists or (not asked.absent and asked.version is None):
            now = await kind.one(gateway, thing_id)
            if asked.exists and now is None:
                raise Problem("version_conflict", etag=None)
            made = now is None
            based_on = now.version if asked.exists and now else None
        answer = await propose(gateway, await kind.proposal(gateway, Change(thing_id, op, based_on, text)))
        if not (isinstance(answer, Refused) and asked.exists):
            break
    if asked.absent and isinstance(answer, Refused):
        raise Problem("version_conflict", "It is there already.")
    return _answer(answer, thing_id, made=made)


async def patch(request: Request, kind: Kind) -> Response:
    """Merge into what stands (RFC 7396); without If-Match a lost race is tried again."""
    caller(request, kind.scope)
    gateway, thing_id, asked = gateway_of(request), path_id(request), preconditions(request)
    if asked.absent:
        raise Problem("bad_etag", "PATCH changes what is there; If-None-Match has no place here.")
    change = await text_of(request)
    answer: Accepted | Refused = Refused("missing", None)
    for _ in range(TRIES):
        now = await kind.one(gateway, thing_id)
        if now is None:
            raise Problem("not_found")
        if asked.version is not None and now.version != asked.version:
            raise Refused("version", now.version).problem()
        try:
            text = merged(now.body, _without_ours(change))
        except (ValueError, RecursionError) as error:
            raise Problem("bad_json", "Nested too deeply.") from error
        answer = await propose(gateway, await kind.proposal(gateway, Change(thing_id, "replace", now.version, text)))
        if not isinstance(answer, Refused) or asked.version is not None:
            break
    return _answer(answer, thing_id, made=False)


async def delete(request: Request, kind: Kind) -> Response:
    """It is gone; 404 if it was not there."""
    caller(request, kind.scope)
    gateway, thing_id, asked = gateway_of(request), path_id(request), preconditions(request)
    answer = await propose(gateway, await kind.proposal(gateway, Change(thing_id, "delete", _version(asked), "")))
    return _answer(answer, thing_id, made=False)


async def text_of(request: Request) -> str:
    """The body of a change: a JSON object's text. Problem."""
    text = await body_text(request, "http_body", gateway_of(request).settings.limits.http_body, "A request's body")
    json_object(text)
    return text


async def position_of(gateway: Gateway, kind: Kind) -> str:
    """Where the rows of a kind stand; read before them, so that it never says too much."""
    return await gateway.rows_position(kind.topic)


def with_id(thing_id: str, text: str) -> dict[str, str]:
    """The raw members of a body without white space, the id first, without what answers add."""
    parts = {name: compact(raw) for name, raw in members(text).items() if name not in OURS}
    return {"id": quoted(thing_id), **parts}


def _without_ours(text: str) -> str:
    return _text({name: raw for name, raw in members(text).items() if name not in OURS})


def _shown(thing: Thing) -> dict[str, str]:
    return members(thing.body) | {"version": str(thing.version), "etag": quoted(etag(thing.version))}


def _text(parts: dict[str, str]) -> str:
    return "{" + ",".join(f"{quoted(name)}:{raw}" for name, raw in parts.items()) + "}"


def _version(asked: Preconditions) -> int | None:
    return asked.version


def _answer(answer: Accepted | Refused, thing_id: str, *, made: bool) -> Response:
    if isinstance(answer, Refused):
        raise answer.problem()
    parts = {"id": quoted(thing_id), "position": quoted(answer.position)}
    if answer.version is None:
        return object_response(parts, 202)
    tag = etag(answer.version)
    parts |= {"version": str(answer.version), "etag": quoted(tag)}
    return object_response(parts, 201 if made else 200, {"etag": tag})
