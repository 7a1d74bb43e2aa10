"""`/v1/silences`: forwards about an alert, an entity or to a user are muted until a time. The inbox is never muted.

Everybody may mute what is forwarded to themselves. What mutes others, or everyone, needs the scope `configs`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, model_validator
from starlette.requests import Request
from starlette.responses import Response

from api.access.tokens import Identity, is_id
from api.documents.answers import OneSilence, SilenceIsOver, SilencePage
from api.documents.operations import (
    AT_LEAST,
    CURSOR,
    LIMIT,
    PAGES,
    READS,
    REPEAT,
    SENDS,
    Operation,
    Param,
)
from api.gateway import Gateway
from api.http.cursors import decode_cursor, encode_cursor
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
    repeat_key,
)
from api.live.frames import quoted, when
from api.marks import until_ms
from api.notices.direct import EntityRef
from api.notices.lanes import Duration
from api.problems import Problem, over, valid
from api.proposals import stamp
from api.sending import put
from projections.sql.views import silences
from projections.sql.views.notices import Cursor
from projections.sql.views.silences import After, Silence
from topics.catalogue import CONTROLS
from topics.events import SilenceEnded, SilenceSet
from topics.ids import derived_id, new_id
from topics.json_text import dumps, encoded, joined, members
from topics.produce import Placed, now_us

SCOPE = "configs"


def _id(given: object) -> str:
    if not isinstance(given, str) or not is_id(given):
        raise ValueError("1 to 200 characters, no control characters")
    return given


Id = Annotated[str, BeforeValidator(_id)]


class NewSilence(BaseModel):
    """A silence as it is sent; all that is given has to match. Without `user` and `everyone` it is the caller's own."""

    model_config = ConfigDict(extra="forbid")
    alert: Id | None = None
    entity: EntityRef | None = None
    user: Id | None = None
    everyone: StrictBool = False
    until: str | None = None
    for_: Duration | None = Field(default=None, alias="for")
    comment: str = Field(default="", max_length=500)

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if (self.until is None) == (self.for_ is None):
            raise ValueError("give either `until`, a time, or `for`, a duration like 2h")
        if self.everyone and self.user is not None:
            raise ValueError("give either `user` or `everyone`")
        if self.everyone and self.alert is None and self.entity is None:
            raise ValueError("`everyone` needs an `alert` or an `entity`: nobody mutes all")
        return self


@Operation(
    "POST",
    "/v1/silences",
    "Mute forwards until a time",
    {200: OneSilence, 201: OneSilence, 202: OneSilence},
    takes=NewSilence,
    params=(REPEAT,),
    problems=(*SENDS, "bad_request", "forbidden", "limit", "store_away"),
)
async def _set(request: Request) -> Response:
    identity, gateway, limits = caller(request), gateway_of(request), gateway_of(request).settings.limits
    wanted = valid(NewSilence, json_object(await body_text(request)))
    user = None if wanted.everyone else (wanted.user or identity.user)
    _need(identity, user)
    now = now_us() // 1000
    until = until_ms(wanted.until, now) if wanted.until is not None else now + (wanted.for_ or 0)
    if until <= now:
        raise Problem("bad_field", "for: longer than nothing")
    silence_id = _silence_id(request, identity)
    standing = await gateway.database.read(silences.one, silence_id)
    if standing is not None:  # the same request again
        return object_response(_parts(standing) | {"position": quoted(await gateway.rows_position(CONTROLS))})
    if await gateway.database.read(silences.count, identity.user, now) >= limits.silences:
        raise over("silences", limits.silences, "silences of one person at a time")
    event = SilenceSet(
        **stamp(gateway),
        silence_id=silence_id,
        by=identity.user,
        alert=wanted.alert,
        entity_type=wanted.entity.type if wanted.entity else None,
        entity_id=wanted.entity.id if wanted.entity else None,
        user=user,
        until=until,
        body=encoded(joined({"comment": dumps(wanted.comment)})),
    )
    placed = await put(gateway, CONTROLS, silence_id, event)
    where = (event.alert, event.entity_type, event.entity_id, event.user)
    parts = _parts(Silence(silence_id, event.by, *where, until, event.body.decode(), now))
    return await _answer(gateway, placed, parts, 201)


@Operation(
    "GET",
    "/v1/silences",
    "Silences",
    {200: SilencePage},
    params=(Param("all", "`true`: also those that are over.", Literal["true", "false"]), LIMIT, CURSOR, AT_LEAST),
    problems=PAGES,
)
async def _list(request: Request) -> Response:
    identity, gateway, query = caller(request), gateway_of(request), request.query_params
    cursor = decode_cursor(query["cursor"]) if "cursor" in query else None
    after = After(cursor.raised_offset, cursor.notice_id) if cursor else None
    everything, limit = query.get("all", "false"), page_limit(request)
    if everything not in ("", "true", "false"):
        raise Problem("bad_request", "`all` is true or false.")
    await at_least(request)
    position = await gateway.rows_position(CONTROLS)
    found = await gateway.database.read(
        silences.page,
        None if identity.may(SCOPE) else identity.user,
        now_us() // 1000 if everything == "false" else 0,
        after,
        limit + 1,
    )
    shown = found[:limit]
    following = encode_cursor(Cursor(shown[-1].until, shown[-1].id)) if len(found) > limit else None
    return object_response(
        {
            "items": listed(joined(_parts(s)) for s in shown),
            "next": quoted(following) if following else "null",
            "position": quoted(position),
        }
    )


@Operation(
    "GET",
    "/v1/silences/{id:path}",
    "A silence",
    {200: OneSilence},
    params=(AT_LEAST,),
    problems=(*READS, "bad_field", "not_found"),
)
async def _get(request: Request) -> Response:
    identity, gateway = caller(request), gateway_of(request)
    await at_least(request)
    position = await gateway.rows_position(CONTROLS)
    found = await gateway.database.read(silences.one, path_id(request))
    if found is None or not (identity.may(SCOPE) or found.user in (None, identity.user)):
        raise Problem("not_found")
    return object_response(_parts(found) | {"position": quoted(position)})


@Operation(
    "DELETE",
    "/v1/silences/{id:path}",
    "End a silence",
    {200: SilenceIsOver, 202: SilenceIsOver},
    problems=(*SENDS, "forbidden", "not_found", "store_away"),
)
async def _end(request: Request) -> Response:
    identity, gateway, silence_id = caller(request), gateway_of(request), path_id(request)
    found = await gateway.database.read(silences.one, silence_id)
    if found is None or not (identity.may(SCOPE) or found.user in (None, identity.user)):
        raise Problem("not_found")
    _need(identity, found.user)
    event = SilenceEnded(**stamp(gateway), silence_id=silence_id, by=identity.user)
    placed = await put(gateway, CONTROLS, silence_id, event)
    return await _answer(gateway, placed, {"id": quoted(silence_id)}, 200)


def _need(identity: Identity, user: str | None) -> None:
    """Problem `forbidden`: who silences others, or everyone, needs the scope."""
    if user != identity.user:
        identity.need(SCOPE)


def _silence_id(request: Request, identity: Identity) -> str:
    """Of a repeated request the same one."""
    key = repeat_key(request)
    return new_id() if key is None else derived_id("silence", identity.user, key)


async def _answer(gateway: Gateway, placed: Placed, parts: dict[str, str], status: int) -> Response:
    """Once the read model has it; after a bounded time 202."""
    held = await gateway.rows_hold(placed)
    return object_response(parts | {"position": quoted(gateway.position_after(placed))}, status if held else 202)


def _parts(silence: Silence) -> dict[str, str]:
    """The members of one as people get it."""
    entity = "null"
    if silence.entity_type is not None and silence.entity_id is not None:
        entity = joined({"type": quoted(silence.entity_type), "id": quoted(silence.entity_id)})
    return {
        "id": quoted(silence.id),
        "alert": "null" if silence.alert is None else quoted(silence.alert),
        "entity": entity,
        "user": "null" if silence.user is None else quoted(silence.user),
        "everyone": "true" if silence.user is None else "false",
        "until": when(silence.until),
        "comment": members(silence.body).get("comment", '""'),
        "by": quoted(silence.by),
        "set_at": when(silence.at),
    }


CALLS = (_list, _set, _get, _end)
