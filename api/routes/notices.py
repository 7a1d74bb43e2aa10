"""`/v1/notices…` and `/v1/preferences`: sending direct notices, and the caller's own inbox as the rows have it."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.documents.answers import Batch, CountsAt, Marked, NoticePage, OneNotice, Position, PreferencesAt, Sent, State
from api.documents.operations import (
    AT_LEAST,
    CURSOR,
    LIMIT,
    LINES,
    PAGES,
    READS,
    REPEAT,
    SENDS,
    Operation,
    Param,
)
from api.gateway import Gateway
from api.http.cursors import decode_cursor, encode_cursor
from api.http.ndjson import answer, items, lines, refused
from api.http.requests import (
    JSON,
    at_least,
    body_text,
    caller,
    gateway_of,
    is_ndjson,
    json_object,
    listed,
    object_response,
    page_limit,
    path_id,
    repeat_key,
)
from api.live.frames import quoted
from api.live.protocol import Id, MarkRequest
from api.marks import mark
from api.notices import direct
from api.notices.direct import ConditionOver, DirectNotice
from api.notices.notice_json import notice_text
from api.preferences import Preferences, checked
from api.problems import Problem, valid
from api.proposals import stamp
from api.sending import put
from projections.notice import STATES
from projections.sql.views import notices, positions
from projections.sql.views.notices import Cursor
from topics.catalogue import NOTICES
from topics.events import PreferencesChanged
from topics.ids import new_id
from topics.json_text import compact, joined, members
from topics.partition import partition_of

LONGEST_SEARCH = 200
WRITE = "notices:write"


class NewMark(MarkRequest):
    """As on a live channel; without a `cmd` it gets one, which the answer tells."""

    cmd: Id = Field(default_factory=new_id)


# ---- sending
@Operation(
    "POST",
    "/v1/notices",
    "Send a direct notice, or a batch",
    {202: Sent | Batch, 422: Batch},
    WRITE,
    takes={JSON: DirectNotice | list[DirectNotice], LINES: None},
    params=(REPEAT,),
    problems=(*SENDS, "store_away", "bad_request", "limit", "unknown_channel", "unknown_recipient"),
)
async def _send(request: Request) -> Response:
    identity, gateway = caller(request, WRITE), gateway_of(request)
    request_key = repeat_key(request) or new_id()
    if is_ndjson(request):
        return await _send_batch(gateway, identity.user, request_key, await lines(request))
    text = await body_text(request)
    if text.lstrip().startswith("["):
        return await _send_batch(gateway, identity.user, request_key, items(text, gateway.settings.limits.ndjson_lines))
    sent = await direct.request(gateway, identity.user, request_key, text)
    position = gateway.live.token(sent.topic, sent.following)
    return JSONResponse({"ids": sent.ids, "request_key": request_key, "position": position}, 202)


async def _send_batch(gateway: Gateway, subject: str, request_key: str, texts: list[str]) -> Response:
    results: list[dict[str, Any]] = []
    for start in range(0, len(texts), 100):
        asked = [(f"{request_key}/{index}", text) for index, text in enumerate(texts[start : start + 100], start)]
        for (key, _), sent in zip(asked, await direct.request_all(gateway, subject, asked), strict=True):
            if isinstance(sent, Problem):
                results.append(refused(len(results), sent))
                continue
            position = gateway.live.token(sent.topic, sent.following)
            results.append({"line": len(results) + 1, "ids": sent.ids, "request_key": key, "position": position})
    return answer(results)


@Operation(
    "POST",
    "/v1/notices/resolve",
    "A direct condition is over",
    {202: Position},
    WRITE,
    takes=ConditionOver,
    problems=SENDS,
)
async def _resolve(request: Request) -> Response:
    identity, gateway = caller(request, WRITE), gateway_of(request)
    text = await body_text(request)
    placed = await direct.resolve_condition(gateway, identity.user, text)
    return JSONResponse({"position": gateway.position_after(placed)}, 202)


# ---- the caller's inbox
@Operation(
    "GET",
    "/v1/notices",
    "The caller's inbox, newest first",
    {200: NoticePage},
    params=(
        Param("state", "Which notices; `open` unless said.", State),
        Param("q", "Words that stand in the notice.", Annotated[str, Field(max_length=LONGEST_SEARCH)]),
        LIMIT,
        CURSOR,
        AT_LEAST,
    ),
    problems=PAGES,
)
async def _list(request: Request) -> Response:
    user, gateway, query = caller(request).user, gateway_of(request), request.query_params
    state, words = query.get("state", "open"), query.get("q")
    if state not in STATES:
        raise Problem("bad_request", f"`state` is one of {', '.join(STATES)}.")
    if words is not None and len(words) > LONGEST_SEARCH:
        raise Problem("bad_request", f"`q` has at most {LONGEST_SEARCH} characters.")
    before = decode_cursor(query["cursor"]) if "cursor" in query else None
    limit = page_limit(request)
    await at_least(request)

    def rows(tx: Any) -> tuple[dict[str, str], int]:
        found = notices.page(tx, user, state, before=before, limit=limit + 1, words=words)
        shown = found[:limit]
        deliveries = notices.deliveries(tx, shown)
        counts = notices.counts(tx, user)
        last = encode_cursor(Cursor(shown[-1].raised_offset, shown[-1].notice_id)) if len(found) > limit else None
        parts = {
            "items": listed(notice_text(n, n.body, deliveries) for n in shown),
            "next": quoted(last) if last else "null",
            "counts": f'{{"unread":{counts["unread"]},"unseen":{counts["unseen"]}}}',
        }
        return parts, _next(tx, gateway, user)

    parts, following = await gateway.database.read(rows)
    return object_response(parts | {"position": _position(gateway, user, following)})


@Operation(
    "GET", "/v1/notices/counts", "How many are unread and unseen", {200: CountsAt}, params=(AT_LEAST,), problems=READS
)
async def _counts(request: Request) -> Response:
    user, gateway = caller(request).user, gateway_of(request)
    await at_least(request)

    def rows(tx: Any) -> tuple[dict[str, int], int]:
        return notices.counts(tx, user), _next(tx, gateway, user)

    counts, following = await gateway.database.read(rows)
    parts = {name: str(count) for name, count in counts.items()}
    return object_response(parts | {"position": _position(gateway, user, following)})


@Operation(
    "GET",
    "/v1/notices/{id}",
    "A notice",
    {200: OneNotice},
    params=(AT_LEAST,),
    problems=(*READS, "bad_field", "not_found"),
)
async def _one(request: Request) -> Response:
    user, gateway, notice_id = caller(request).user, gateway_of(request), path_id(request)
    await at_least(request)

    def rows(tx: Any) -> tuple[str | None, int]:
        found = [n for n in notices.by_ids(tx, user, [notice_id]) if n.inbox]
        text = notice_text(found[0], found[0].body, notices.deliveries(tx, found)) if found else None
        return text, _next(tx, gateway, user)

    text, following = await gateway.database.read(rows)
    if text is None:
        raise Problem("not_found")
    return object_response(members(text) | {"position": _position(gateway, user, following)})


@Operation(
    "POST",
    "/v1/notices/mark",
    "Mark notices of the caller",
    {200: Marked, 202: Marked},
    takes=NewMark,
    problems=(*SENDS, "store_away", "bad_position", "position_lost", "limit"),
)
async def _mark(request: Request) -> Response:
    user, gateway = caller(request).user, gateway_of(request)
    asked = valid(NewMark, json_object(await body_text(request)))
    marked = await mark(gateway, user, asked)
    following = {marked.partition: marked.offset + 1}
    said: dict[str, Any] = {"cmd": asked.cmd, "position": gateway.live.token(NOTICES, following)}
    if marked.done:
        return JSONResponse(said | {"done": True})
    held = await gateway.database.reaches(NOTICES, following, gateway.settings.limits.wait, answers=False)
    return JSONResponse(said, 200 if held else 202)


# ---- preferences
@Operation(
    "GET",
    "/v1/preferences",
    "What the caller says about forwards",
    {200: PreferencesAt},
    params=(AT_LEAST,),
    problems=READS,
)
async def _preferences(request: Request) -> Response:
    user, gateway = caller(request).user, gateway_of(request)
    await at_least(request)

    def rows(tx: Any) -> tuple[str | None, int]:
        return notices.preferences_of(tx, user), _next(tx, gateway, user)

    text, following = await gateway.database.read(rows)
    return object_response(members(text or "{}") | {"position": _position(gateway, user, following)})


@Operation(
    "PUT",
    "/v1/preferences",
    "Say how to forward to the caller",
    {200: Position, 202: Position},
    takes=Preferences,
    size="data",
    params=(REPEAT,),
    problems=(*SENDS, "store_away", "bad_request", "unknown_channel"),
)
async def _put_preferences(request: Request) -> Response:
    user, gateway = caller(request).user, gateway_of(request)
    text = await body_text(request, "data", "The preferences")
    json_object(text)
    text = joined({name: compact(raw) for name, raw in members(text).items() if name != "position"})
    checked(json_object(text), gateway.settings.channels)
    cmd = repeat_key(request) or new_id()
    placed = await put(
        gateway, NOTICES, user, PreferencesChanged(**stamp(gateway), user=user, cmd=cmd, body=text.encode())
    )
    return JSONResponse({"position": gateway.position_after(placed)}, 200 if await gateway.rows_hold(placed) else 202)


def _next(tx: Any, gateway: Gateway, user: str) -> int:
    found = positions.reached(tx, NOTICES).get(partition_of(user, gateway.live.partitions(NOTICES)))
    return found.next if found else 0


def _position(gateway: Gateway, user: str, following: int) -> str:
    return quoted(gateway.live.token(NOTICES, {partition_of(user, gateway.live.partitions(NOTICES)): following}))


CALLS = (_list, _send, _resolve, _mark, _counts, _one, _preferences, _put_preferences)
