"""What HTTP requests have in common: who calls, a body within its limit, a list's limits, reading one's own writes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from api.access.tokens import Identity, is_id
from api.problems import Problem, too_large
from topics.catalogue import COMMANDS, NOTICE_REQUESTS, NOTICES, entity_topic
from topics.json_text import joined

if TYPE_CHECKING:
    from api.gateway import Gateway

JSON = "application/json"
NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves this request."""
    found: Gateway = request.app.state.gateway
    return found


def caller(request: Request, scope: str | None = None) -> Identity:
    """Who calls, with `scope` if one is needed. Problem."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        raise Problem("unauthorized")
    identity = gateway_of(request).tokens.identify(token.strip())
    if scope is not None:
        identity.need(scope)
    return identity


async def body_text(request: Request, name: str = "http_body", what: str = "A request's body") -> str:
    """The body as text, at most as large as the limit of this `name`. Problem."""
    limit: int = getattr(gateway_of(request).settings.limits, name)
    size, parts = 0, []
    try:
        async for part in request.stream():
            size += len(part)
            if size > limit:
                raise too_large(name, limit, what)
            parts.append(part)
    except ClientDisconnect as error:  # nobody reads this answer, and nothing broke here
        raise Problem("bad_request", "The body was cut off.") from error
    try:
        return b"".join(parts).decode()
    except UnicodeDecodeError as error:
        raise Problem("bad_json", f"Not UTF-8 at byte {error.start}.") from error


def json_value(text: str) -> Any:
    """A JSON text's value; numbers and names as Python has them. Problem `bad_json`."""
    try:
        return json.loads(text, parse_constant=_no_json)
    except json.JSONDecodeError as error:
        raise Problem("bad_json", f"{error.msg} at line {error.lineno}, column {error.colno}.") from error
    except (ValueError, RecursionError) as error:
        raise Problem("bad_json", "Nested too deeply, or a number that is none.") from error


def json_object(text: str) -> dict[str, Any]:
    """As `json_value`, for an object. Problem."""
    value = json_value(text)
    if not isinstance(value, dict):
        raise Problem("bad_json", "A JSON object is expected.")
    return value


def is_ndjson(request: Request) -> bool:
    """Whether the body is one JSON value a line."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() in NDJSON


def path_id(request: Request, name: str = "id") -> str:
    """An id from the path. Problem."""
    found: str = request.path_params[name]
    if not is_id(found):
        raise Problem("bad_field", "An id has 1 to 200 characters and no control characters.")
    return found


def repeat_key(request: Request) -> str | None:
    """What makes a repeat of this request known. Problem."""
    key = request.headers.get("idempotency-key") or None
    if key is not None and not is_id(key):
        raise Problem("bad_request", "Idempotency-Key has 1 to 200 characters.")
    return key


def page_limit(request: Request, default: int = 50, most: int | None = None) -> int:
    """How many rows are wanted, at most `most`, or the limit of a page. Problem."""
    text = request.query_params.get("limit")
    if text is None:
        return default
    most = most or gateway_of(request).settings.limits.page
    if not text.isascii() or not text.isdigit() or len(text) > 9 or not 1 <= int(text) <= most:
        raise Problem("bad_request", f"`limit` is a number from 1 to {most}.")
    return int(text)


async def at_least(request: Request) -> None:
    """Wait until reads hold what the position in `at_least` names. Problem `behind` after a bounded time."""
    token = request.query_params.get("at_least")
    if token is None:
        return
    gateway = gateway_of(request)
    entities = tuple(entity_topic(t) for t in gateway.types)
    topic, position = gateway.live.understood(token, gateway.live.known)
    seconds = gateway.settings.limits.wait
    if topic in entities:
        held = await gateway.live.passes(topic, position.next, seconds)
    else:
        answers = topic in (COMMANDS, NOTICE_REQUESTS)
        held = await gateway.database.reaches(topic, position.next, seconds, answers=answers)
        if topic == NOTICES:
            held = held and await gateway.live.passes(topic, position.next, seconds)
    if not held:
        raise Problem("behind")


def object_response(parts: dict[str, str], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON object of raw member texts."""
    return Response(joined(parts), status, {"cache-control": "no-store"} | (headers or {}), JSON)


def listed(texts: Iterable[str]) -> str:
    """A JSON array of raw texts."""
    return "[" + ",".join(texts) + "]"


def _no_json(name: str) -> NoReturn:
    raise ValueError(name)
