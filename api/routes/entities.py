"""`/v1/entities/…`: changes go to the log as they come; lists come from the gateway's memory, by the filter that
pushes use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.access.tokens import Identity
from api.documents.answers import Batch, EntityPage, OneEntity, Written
from api.documents.operations import (
    AT_LEAST,
    CURSOR,
    LIMIT,
    LINES,
    PAGES,
    READS,
    SENDS,
    Operation,
    Param,
)
from api.gateway import Gateway
from api.http.cursors import decode_id, encode_id
from api.http.ndjson import answer, lines, refused
from api.http.requests import (
    at_least,
    body_text,
    caller,
    gateway_of,
    is_ndjson,
    json_object,
    json_value,
    listed,
    object_response,
    page_limit,
    path_id,
)
from api.live.entities import LiveEntities
from api.live.filters import Filter, both, requested
from api.live.frames import quoted
from api.problems import Problem, too_large, valid
from api.proposals import stamp
from api.routes.silences import Id
from api.sending import begin, landed, put
from topics.catalogue import entity_topic
from topics.events import EntityChanged
from topics.json_text import compact, members
from topics.produce import Placed

AT_ONCE = 500
MANY, ONE = "/v1/entities/{type}", "/v1/entities/{type}/{id:path}"
READ, WRITE = "entities:read:{type}", "entities:write:{type}"
FILTER = Param("filter", "A filter as JSON, as live subscriptions take it.")


def _ms(given: object) -> int:
    """RFC 3339, or milliseconds since 1970."""
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < 253_402_300_800_000:
        return given
    try:
        found = datetime.fromisoformat(given) if isinstance(given, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("a time as in RFC 3339, or milliseconds since 1970")
    return max(0, int(found.timestamp() * 1000))


class Change(BaseModel):
    """One change as it was sent."""

    model_config = ConfigDict(extra="forbid")
    id: Id
    op: Literal["created", "updated", "deleted"] = "updated"
    body: Any = None
    version: Annotated[int, Field(strict=True, ge=0, lt=2**63)] | None = None
    at: Annotated[int, BeforeValidator(_ms)] | None = None


# ---- reading
@Operation(
    "GET",
    MANY,
    "Entities of a type, filtered and paged",
    {200: EntityPage},
    scope=READ,
    params=(FILTER, LIMIT, CURSOR, AT_LEAST),
    problems=(*PAGES, "unknown_entity_type", "bad_filter", "bad_json"),
)
async def _list(request: Request) -> Response:
    live, enforced = _reading(request)
    await _begun(request)
    await at_least(request)
    gateway, limits, query = gateway_of(request), gateway_of(request).settings.limits, request.query_params
    own = requested(json_value(query["filter"]), limits) if "filter" in query else None
    after = decode_id(query["cursor"]) if "cursor" in query else ""
    topic = entity_topic(live.entity_type)
    found, more = live.page(both(own, enforced), after, page_limit(request))
    parts = {
        "items": listed(e.text(live.entity_type) for e in found),
        "next": quoted(encode_id(found[-1].id)) if more else "null",
        "position": quoted(gateway.live.token(topic, gateway.live.vector(topic))),
    }
    return object_response(parts)


@Operation(
    "GET",
    ONE,
    "An entity as it stands",
    {200: OneEntity},
    scope=READ,
    params=(AT_LEAST,),
    problems=(*READS, "unknown_entity_type", "not_found", "bad_field"),
)
async def _one(request: Request) -> Response:
    live, enforced = _reading(request)
    await _begun(request)
    await at_least(request)
    gateway, topic = gateway_of(request), entity_topic(live.entity_type)
    entity = live.entities.get(path_id(request))
    if entity is None or (enforced is not None and not enforced.matches(entity.parsed)):
        raise Problem("not_found")
    position = quoted(gateway.live.token(topic, gateway.live.vector(topic)))
    return object_response(members(entity.text(live.entity_type)) | {"position": position})


def _reading(request: Request) -> tuple[LiveEntities, Filter | None]:
    identity = caller(request)
    live = _served(request, identity, "read")
    return live, identity.filters.get(live.entity_type)


async def _begun(request: Request) -> None:
    gateway = gateway_of(request)
    if not await gateway.started(gateway.settings.limits.wait):
        raise Problem("not_ready")


# ---- writing
@Operation(
    "PUT",
    ONE,
    "An entity was created or changed",
    {202: Written},
    scope=WRITE,
    takes=dict[str, Any],
    size="entity_body",
    problems=(*SENDS, "unknown_entity_type"),
)
async def _put(request: Request) -> Response:
    live = _served(request, caller(request), "write")
    text = await body_text(request, "entity_body", "An entity's body")
    json_object(text)
    return await _accepted(request, live.entity_type, Change(id=path_id(request)), compact(text))


@Operation("DELETE", ONE, "An entity is gone", {202: Written}, scope=WRITE, problems=(*SENDS, "unknown_entity_type"))
async def _delete(request: Request) -> Response:
    live = _served(request, caller(request), "write")
    return await _accepted(request, live.entity_type, Change(id=path_id(request), op="deleted"), None)


async def _accepted(request: Request, entity_type: str, change: Change, body: str | None) -> Response:
    gateway, topic = gateway_of(request), entity_topic(entity_type)
    event = _event(gateway, entity_type, change, body)
    placed = await put(gateway, topic, change.id, event)
    return JSONResponse({"event_id": event.event_id, "position": gateway.position_after(placed)}, 202)


@Operation(
    "POST",
    MANY,
    "Many changes, one a line",
    {202: Batch, 422: Batch},
    scope=WRITE,
    takes={LINES: None},
    size="ndjson_body",
    problems=(*SENDS, "unknown_entity_type", "bad_request", "limit"),
)
async def _batch(request: Request) -> Response:
    live = _served(request, caller(request), "write")
    if not is_ndjson(request):
        raise Problem("bad_request", "Send one change a line, with the content type application/x-ndjson.")
    gateway, topic = gateway_of(request), entity_topic(live.entity_type)
    given = await lines(request)
    results: list[dict[str, Any]] = []
    reached: dict[int, int] = {}

    async def answered(index: int, event: EntityChanged, sent: asyncio.Future[Placed]) -> dict[str, Any]:
        try:
            placed = await landed(sent)
        except Problem as problem:
            return refused(index, problem)
        reached[placed.partition] = max(reached.get(placed.partition, 0), placed.offset + 1)
        return {"line": index + 1, "event_id": event.event_id, "position": gateway.position_after(placed)}

    async def at_once(problem: dict[str, Any]) -> dict[str, Any]:
        return problem

    for start in range(0, len(given), AT_ONCE):
        waiting: list[Coroutine[Any, Any, dict[str, Any]]] = []
        for index, line in enumerate(given[start : start + AT_ONCE], start):
            try:
                change = valid(Change, json_object(line))
                body = _body(change, line, gateway.settings.limits.entity_body)
                event = _event(gateway, live.entity_type, change, body)
                waiting.append(answered(index, event, await begin(gateway, topic, change.id, event)))
            except Problem as problem:
                waiting.append(at_once(refused(index, problem)))
        results += await asyncio.gather(*waiting)
    return answer(results, **({"position": gateway.live.token(topic, reached)} if reached else {}))


def _event(gateway: Gateway, entity_type: str, change: Change, body: str | None) -> EntityChanged:
    return EntityChanged(
        **stamp(gateway),
        entity_type=entity_type,
        entity_id=change.id,
        op=change.op,
        version=change.version,
        at=change.at,
        body=None if body is None else body.encode(),
    )


def _body(change: Change, line: str, limit: int) -> str | None:
    """The text of the body in an NDJSON line; null for a deletion. Problem."""
    if change.op == "deleted":
        return None
    if not isinstance(change.body, dict):
        raise Problem("bad_field", "body: a JSON object")
    body = members(line)["body"]
    if len(body.encode()) > limit:
        raise too_large("entity_body", limit, "An entity's body")
    return compact(body)


def _served(request: Request, identity: Identity, right: str) -> LiveEntities:
    entity_type: str = request.path_params["type"]
    identity.need(f"entities:{right}:{entity_type}")
    live = gateway_of(request).entities.get(entity_type)
    if live is None:
        raise Problem(
            "unknown_entity_type", f"{entity_type[:100]!r} is not served here.", known=list(gateway_of(request).types)
        )
    return live


CALLS = (_list, _batch, _one, _put, _delete)
