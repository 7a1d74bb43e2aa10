"""`/v1/history`, for auditors: events in the order of the log's time, page by page, or somebody's inbox as it was.

A page is read from the log when it is asked for, and ends at its limit, its size or its time; `next` goes on where it
ended, at any gateway, whenever that is. Nothing is kept between two pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.access.tokens import is_id
from api.documents.answers import HistoryPage, PastInbox, State
from api.documents.operations import CURSOR, LINES, Operation, Param
from api.http.archive import archive_of
from api.http.cursors import decode_cursor, decode_place, encode_cursor, encode_place
from api.http.requests import JSON, NDJSON, caller, gateway_of, listed, object_response, page_limit
from api.live.frames import quoted, when
from api.notices.notice_json import notice_text
from api.problems import Problem
from api.routes.why import AUDIT
from projections.history import TOPICS, Past
from projections.notice import STATES
from projections.sql.views.notices import Cursor
from topics.json_text import joined
from topics.read import SMALL, At, HistoryReader
from topics.record_json import as_members
from topics.selection import EntityName, Selection

PAGE_BYTES = 4 * 1024 * 1024
PAGE_S = 5.0
SO_MANY_LINES, MOST_LINES = 1_000, 10_000


@Operation(
    "GET",
    "/v1/history",
    "What happened, or an inbox as it was",
    {200: {JSON: HistoryPage | PastInbox, LINES: None}},
    scope=AUDIT,
    params=(
        Param("user", "Only what is about this user; with `as_of`, whose inbox."),
        Param("since", "From this time on."),
        Param("until", "Up to this time."),
        Param("entity", "Only what is about this entity: `vm/17`."),
        Param("as_of", "The inbox of `user` as it was then; with `state`, `cursor` and `limit` alone."),
        Param("topic", "Only these topics; may be given several times.", list[str]),
        Param("state", "Which notices of the inbox.", State),
        Param("limit", "How many at most; as lines up to 10,000.", int, most="page"),
        CURSOR,
    ),
    problems=("bad_request", "bad_cursor", "log_away", "busy", "takes_too_long", "not_ready"),
)
async def _history(request: Request) -> Response:
    caller(request, AUDIT)
    query = request.query_params
    user = query.get("user")
    if user is not None and not is_id(user):
        raise Problem("bad_request", "`user` has 1 to 200 characters and no control characters.")
    if query.get("state", "open") not in STATES:
        raise Problem("bad_request", f"`state` is one of {', '.join(STATES)}.")
    if "as_of" in query:
        if user is None or {"since", "until", "entity", "topic"} & set(query):
            raise Problem("bad_request", "`as_of` goes with `user`, and with `state`, `cursor` and `limit` alone.")
        return await _as_of(request, user, _time(query["as_of"], "as_of"))
    times = {name: _time(query[name], name) for name in ("since", "until") if name in query}
    after = decode_place(query["cursor"]) if "cursor" in query else None
    lines = query_accepts_lines(request)
    limit = page_limit(request, SO_MANY_LINES, MOST_LINES) if lines else page_limit(request)
    wanted = _selection(request, user)
    async with archive_of(request).reading(piece=SMALL) as reader:
        found, last = await _page(reader, wanted, limit, after=after, **times)
    following = orjson.dumps(None if last is None else encode_place(last))
    if lines:
        return Response(
            b"".join(f + b"\n" for f in (*found, b'{"next":' + following + b"}")), 200, _NOT_KEPT, NDJSON[0]
        )
    return Response(b'{"items":[' + b",".join(found) + b'],"next":' + following + b"}", 200, _NOT_KEPT, JSON)


_NOT_KEPT = {"cache-control": "no-store"}


async def _page(reader: HistoryReader, wanted: Selection, limit: int, **where: Any) -> tuple[list[bytes], At | None]:
    """The JSON texts of a page, and where it ended; null if that is the end of what was asked for."""
    found: list[bytes] = []
    size, last, late = 0, where["after"], _after(PAGE_S)
    async for at, message in reader.merged(wanted.spots(reader), give_up=late, **where):
        if len(found) == limit or size > PAGE_BYTES or late():
            return found, last
        if wanted.maybe(message) and wanted.holds(item := await reader.item(message)):
            found.append(orjson.dumps(as_members(item)))
            size += len(found[-1])
        last = at
    if late():
        if last is None:
            raise Problem("takes_too_long")
        return found, last
    return found, None


async def _as_of(request: Request, user: str, at: int) -> Response:
    state, past = request.query_params.get("state", "open"), Past()
    before = decode_cursor(request.query_params["cursor"]) if "cursor" in request.query_params else None
    limit = page_limit(request)
    async with archive_of(request).reading() as reader:
        for topic in TOPICS:
            async for record in reader.of_key(topic, user, until=at + 1):
                past.take(record)
    found, deliveries = past.page(state, before=before, limit=limit + 1), past.deliveries
    shown = found[:limit]
    last = encode_cursor(Cursor(shown[-1].raised_offset, shown[-1].notice_id)) if len(found) > limit else None
    parts = {
        "user": quoted(user),
        "as_of": when(at),
        "counts": joined({name: str(count) for name, count in past.counts.items()}),
        "items": listed(notice_text(n, n.body, deliveries) for n in shown),
        "next": quoted(last) if last else "null",
    }
    return object_response(parts)


def _selection(request: Request, user: str | None) -> Selection:
    known, query = gateway_of(request).settings.catalogue.topics(), request.query_params
    topics = tuple(query.getlist("topic")) or tuple(known)
    if unknown := [t for t in topics if t not in known]:
        raise Problem("bad_request", f"There is no topic {unknown[0][:100]!r}.")
    kind, slash, name = query.get("entity", "").partition("/")
    if "entity" in query and not (kind and slash and is_id(name)):
        raise Problem("bad_request", "`entity` names a type and an id: vm/17.")
    return Selection(topics, user, EntityName(kind, name) if slash else None)


def query_accepts_lines(request: Request) -> bool:
    """Whether one JSON value a line is wanted."""
    accepted = (part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(","))
    return any(part in NDJSON for part in accepted)


def _time(text: str, name: str) -> int:
    try:
        found = datetime.fromisoformat(text.replace(" ", "+"))  # a `+` that was not escaped in the query
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise Problem("bad_request", f"`{name}` is a time as in RFC 3339: 2026-11-23T09:00:00Z.") from error


def _after(seconds: float) -> Callable[[], bool]:
    """Whether these seconds from now are over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


CALLS = (_history,)
