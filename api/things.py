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

from api.access.tokens import is_id
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
    Call,
    Operation,
    Param,
)
from api.gateway import Gateway
from api.http.cursors import decode_id, encode_id
from api.http.etags import etag, preconditions
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
from topics.ids import new_id
from topics.json_text import compact, joined, members

OURS = ("id", "etag", "version", "position", "reports")  # what answers add is not taken back
TRIES = 10
MADE, CHANGED = {200: Decided, 201: Decided, 202: Decided}, {200: Decided, 202: Decided}
PROPOSES = (*SENDS, "store_away", "unknown_channel", "unknown_recipient")
CHANGES = (*PROPOSES, "bad_etag", "version_conflict")


@dataclass(frozen=True, slots=True)
class Change:
    """What is wanted: `op` create, replace or delete; `text` the whole new body, empty for a delete."""

    id: str
    op: str
    based_on: int | None
    text: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of thing; `room` names it in paths, `what` for people; `posted`: POST makes one. `filters` are of lists.
    `proposal` checks a change and makes the event, `added` gives further members of answers.
    """

    room: str
    what: str
    topic: str
    scope: str
    takes: type
    shown: type
    listed: type
    posted: bool
    one: Callable[[Gateway, str], Awaitable[Thing | None]]
    page: Callable[[Request, str, int], Awaitable[list[Thing]]]
    proposal: Callable[[Gateway, Change], Awaitable[ConfigProposed | RecipientProposed]]
    added: Callable[[Gateway, list[str]], Awaitable[dict[str, dict[str, str]]]] | None = None
    filters: tuple[Param, ...] = ()

    def calls(self) -> list[Call]:
        """Its routes."""
        many, one, what = f"/v1/{self.room}", f"/v1/{self.room}/{{id:path}}", self.what
        lists = (*self.filters, LIMIT, CURSOR, AT_LEAST)

        def call(
            method: str, path: str, does: Callable[[Request], Awaitable[Response]], summary: str, **said: Any
        ) -> Call:
            return Operation(method, path, summary, scope=self.scope, room=self.room, **said)(does)

        post = call(
            "POST",
            many,
            self._create,
            f"Make {what}",
            answers={201: Decided, 202: Decided},
            takes=self.takes,
            problems=(*PROPOSES, "exists"),
        )
        return [
            call(
                "GET",
                many,
                self._list,
                f"All, in the order of their ids: {what}",
                answers={200: self.listed},
                params=lists,
                problems=PAGES,
            ),
            *([post] if self.posted else ()),
            call(
                "GET",
                one,
                self._get,
                f"Read {what}",
                answers={200: self.shown},
                params=(AT_LEAST,),
                problems=(*READS, "not_found", "bad_field"),
                etag=True,
            ),
            call(
                "PUT",
                one,
                self._put,
                f"Replace or make {what}",
                answers=MADE,
                takes=self.takes,
                params=(IF_MATCH, IF_NONE_MATCH),
                problems=CHANGES,
            ),
            call(
                "PATCH",
                one,
                self._patch,
                f"Change members of {what}, by RFC 7396",
                answers=CHANGED,
                takes={MERGE_PATCH: dict[str, Any]},
                params=(IF_MATCH,),
                problems=(*CHANGES, "not_found"),
            ),
            call(
                "DELETE",
                one,
                self._delete,
                f"Delete {what}",
                answers=CHANGED,
                params=(IF_MATCH,),
                problems=(*CHANGES, "not_found"),
            ),
        ]

    async def _list(self, request: Request) -> Response:
        """A page in the order of ids."""
        caller(request, self.scope)
        await at_least(request)
        gateway, limit = gateway_of(request), page_limit(request, 200)
        cursor = request.query_params.get("cursor")
        position = await gateway.rows_position(self.topic)  # before the rows, so that it never says too much
        found = await self.page(request, decode_id(cursor) if cursor else "", limit + 1)
        things = found[:limit]
        added = await self._added(gateway, [t.id for t in things])
        texts = [joined(_shown(t) | added.get(t.id, {})) for t in things]
        following = quoted(encode_id(things[-1].id)) if len(found) > limit else "null"
        return object_response({"items": listed(texts), "next": following, "position": quoted(position)})

    async def _create(self, request: Request) -> Response:
        """Make it; 409 if the id is taken."""
        caller(request, self.scope)
        text = await body_text(request)
        thing_id = json_object(text).get("id") or new_id()
        if not isinstance(thing_id, str) or not is_id(thing_id):
            raise Problem("bad_field", "id: 1 to 200 characters, no control characters")
        answer = await self._propose(request, Change(thing_id, "create", None, text))
        return _answer(answer, thing_id, made=True)

    async def _get(self, request: Request) -> Response:
        """The stored text with its ETag."""
        caller(request, self.scope)
        await at_least(request)
        gateway, thing_id = gateway_of(request), path_id(request)
        position = await gateway.rows_position(self.topic)
        thing = await self.one(gateway, thing_id)
        if thing is None:
            raise Problem("not_found")
        added = await self._added(gateway, [thing_id])
        parts = _shown(thing) | added.get(thing_id, {}) | {"position": quoted(position)}
        return object_response(parts, headers={"etag": etag(thing.version)})

    async def _put(self, request: Request) -> Response:
        """Replace it, or make it, as the preconditions allow."""
        caller(request, self.scope)
        gateway, thing_id, asked = gateway_of(request), path_id(request), preconditions(request)
        text = await _text_of(request)
        answer: Accepted | Refused = Refused("missing", None)
        made = asked.absent
        for _ in range(TRIES):
            op, based_on = "create" if asked.absent else "replace", asked.version
            if asked.exists or (not asked.absent and asked.version is None):
                now = await self.one(gateway, thing_id)
                if asked.exists and now is None:
                    raise Problem("version_conflict", etag=None)
                made = now is None
                based_on = now.version if asked.exists and now else None
            answer = await self._propose(request, Change(thing_id, op, based_on, text))
            if not (isinstance(answer, Refused) and asked.exists):
                break
        if asked.absent and isinstance(answer, Refused):
            raise Problem("version_conflict", "It is there already.")
        return _answer(answer, thing_id, made=made)

    async def _patch(self, request: Request) -> Response:
        """Merge into what stands (RFC 7396); without If-Match a lost race is tried again."""
        caller(request, self.scope)
        gateway, thing_id, asked = gateway_of(request), path_id(request), preconditions(request)
        if asked.absent:
            raise Problem("bad_etag", "PATCH changes what is there; If-None-Match has no place here.")
        change = await _text_of(request)
        answer: Accepted | Refused = Refused("missing", None)
        for _ in range(TRIES):
            now = await self.one(gateway, thing_id)
            if now is None:
                raise Problem("not_found")
            if asked.version is not None and now.version != asked.version:
                raise Refused("version", now.version).problem()
            try:
                text = merged(now.body, joined(_theirs(change)))
            except (ValueError, RecursionError) as error:
                raise Problem("bad_json", "Nested too deeply.") from error
            answer = await self._propose(request, Change(thing_id, "replace", now.version, text))
            if not isinstance(answer, Refused) or asked.version is not None:
                break
        return _answer(answer, thing_id, made=False)

    async def _delete(self, request: Request) -> Response:
        """It is gone; 404 if it was not there."""
        caller(request, self.scope)
        thing_id, asked = path_id(request), preconditions(request)
        answer = await self._propose(request, Change(thing_id, "delete", asked.version))
        return _answer(answer, thing_id, made=False)

    async def _propose(self, request: Request, change: Change) -> Accepted | Refused:
        gateway = gateway_of(request)
        return await propose(gateway, await self.proposal(gateway, change))

    async def _added(self, gateway: Gateway, ids: list[str]) -> dict[str, dict[str, str]]:
        return await self.added(gateway, ids) if self.added is not None else {}


async def _text_of(request: Request) -> str:
    """The body of a change: a JSON object's text. Problem."""
    text = await body_text(request)
    json_object(text)
    return text


def with_id(thing_id: str, text: str) -> dict[str, str]:
    """The raw members of a body without white space, the id first, without what answers add."""
    return {"id": quoted(thing_id)} | {name: compact(raw) for name, raw in _theirs(text).items()}


def _theirs(text: str) -> dict[str, str]:
    return {name: raw for name, raw in members(text).items() if name not in OURS}


def _shown(thing: Thing) -> dict[str, str]:
    return members(thing.body) | {"version": str(thing.version), "etag": quoted(etag(thing.version))}


def _answer(answer: Accepted | Refused, thing_id: str, *, made: bool) -> Response:
    if isinstance(answer, Refused):
        raise answer.problem()
    parts = {"id": quoted(thing_id), "position": quoted(answer.position)}
    if answer.version is None:
        return object_response(parts, 202)
    tag = etag(answer.version)
    parts |= {"version": str(answer.version), "etag": quoted(tag)}
    return object_response(parts, 201 if made else 200, {"etag": tag})
