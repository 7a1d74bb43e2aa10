"""`/v1/sse`: one channel as an event stream, with the pushes of the WebSocket and their positions as ids.

What can be refused is refused before the stream begins, as everywhere over HTTP. From then on frames go straight to
the transport, and whatever ends the stream is said in it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import TYPE_CHECKING, Any

import orjson
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from api.access.tokens import Identity
from api.documents.operations import EVENT_STREAM, Operation, Param
from api.http.protocol import BoundedHttpProtocol
from api.http.requests import gateway_of
from api.live.channels import subscribe
from api.live.connection import Connection
from api.live.conversation import LONGEST_S
from api.live.frames import Batch, Frame, chunk, failure
from api.live.protocol import Subscribe
from api.live.websocket import EXTENSION, welcome
from api.problems import Problem, first_fault

if TYPE_CHECKING:
    from api.gateway import Gateway

log = logging.getLogger(__name__)
BACK_MS = (1_000, 5_000)  # when a client whose stream has ended comes back
HEARTBEAT = chunk(b":\n\n")
LAST = b"0\r\n\r\n"
# What a close code of the WebSocket is called here.
_CODES = {4401: "unauthorized", 4501: "not_ready", 4502: "not_ready", 4503: "behind", 4504: "too_slow"}


@Operation(
    "GET",
    "/v1/sse",
    "A live channel as an event stream. The data of each event is a frame of `/v1/ws`, its id the position",
    {200: {EVENT_STREAM: None}},
    params=(
        Param("channel", "`inbox`, or `entities/<type>`."),
        Param("filter", "Only entities that match, as JSON."),
        Param("expand", "What a backend answers in place of what the log has, as JSON: `backend` and `path`."),
        Param("snapshot", "`false`: only what comes from now on.", bool),
        Param("since", "A `position` of this channel: go on after it."),
        Param("Last-Event-ID", "As `since`, and before it: browsers send it when they come back.", where="header"),
        Param("access_token", "The token, for clients that can't send headers."),
    ),
    problems=(
        *("bad_request", "bad_filter", "bad_expand", "bad_position", "position_lost", "not_found", "limit"),
        *("forbidden", "behind", "not_ready", "store_away", "log_away", "too_many_connections"),
    ),
)
async def _stream(request: Request) -> Response:
    gateway = gateway_of(request)
    if gateway.draining:
        raise Problem("not_ready", "This gateway is going away.")
    if not welcome(gateway, request.headers.get("origin"), request.headers.get("host")):
        raise Problem("forbidden", "Pages of this origin are not let in: TIDINGS_ORIGINS names those that are.")
    asked, identity = _asked(request), _caller(gateway, request)
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    if (origin := request.headers.get("origin")) is not None:
        headers |= {"access-control-allow-origin": origin, "vary": "origin"}
    if request.method == "HEAD":
        return Response(None, 200, headers, EVENT_STREAM)
    return EventStream(gateway, identity, asked, headers)


def _caller(gateway: Gateway, request: Request) -> Identity:
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() != "bearer":
        token = request.query_params.get("access_token", "")
    return gateway.tokens.identify(token.strip())


def _asked(request: Request) -> Subscribe:
    given: dict[str, Any] = {k: v for k, v in request.query_params.items() if k != "access_token"}
    if since := request.headers.get("last-event-id"):
        given["since"] = since
    for name in {"filter", "expand", "snapshot"} & given.keys():
        try:
            given[name] = orjson.loads(given[name])
        except orjson.JSONDecodeError as error:
            code = "bad_request" if name == "snapshot" else f"bad_{name}"
            raise Problem(code, f"{name}: no JSON: {error.msg} at {error.pos}.") from error
    try:
        return Subscribe.model_validate(given)
    except ValidationError as error:
        raise Problem("bad_request", f"{first_fault(error)}.") from error


class StreamConnection(Connection):
    """Frames as events. What is sent before the head of the answer is kept: it is the beginning of the answer."""

    __slots__ = ("_first", "begun", "over", "problem")

    def __init__(self, transport: asyncio.Transport, gateway: Gateway) -> None:
        super().__init__(transport, gateway.metrics, gateway.settings.limits)
        self.begun, self.over = asyncio.Event(), asyncio.Event()
        self.problem: Problem | None = None  # that ended it
        self._first: list[bytes] | None = []
        self._beat()

    def bytes_of(self, frames: Frame | Batch) -> bytes:
        """As events."""
        return frames.event

    def send(self, data: bytes) -> None:
        """Bytes to the wire, in order, once the head has been sent."""
        if self._first is None:
            super().send(data)
        else:
            self._first.append(data)
            self.begun.set()

    def flow(self) -> None:
        """The head has been sent."""
        first, self._first = self._first, None
        if self.over.is_set():  # the client went meanwhile
            return
        super().send(b"".join(first or ()))
        if self.closing is not None:
            self.say_goodbye(*self.closing)

    def probe(self) -> None:
        """A comment, so that nobody on the way thinks the line dead; whoever is gone is found out by it."""
        self.send(HEARTBEAT)
        self._beat()

    def _beat(self) -> None:
        self._probe_at = self.look_at = asyncio.get_running_loop().time() + self._limits.heartbeat

    def say_goodbye(self, code: int, reason: str) -> None:
        """An error, and the end of the stream."""
        if self._first is None:
            problem = self.problem or _ended(code, reason)
            super().send(failure(None, problem.frame()).event + LAST)
            self._end()

    def resume_writing(self) -> None:
        """The socket took what the transport had."""
        super().resume_writing()
        self._end()

    def lost(self) -> None:
        """There is no transport any more."""
        super().lost()
        self.begun.set()
        self.over.set()

    def _end(self) -> None:
        if self.closing is not None and not self._paused:
            self._transport.close()


class EventStream(Response):
    """The answer: it begins with the subscription's, and ends when client, token or gateway do."""

    def __init__(self, gateway: Gateway, identity: Identity, asked: Subscribe, headers: dict[str, str]) -> None:
        self._gateway, self._identity, self._asked = gateway, identity, asked
        self.status_code, self.background = 200, None
        self.init_headers(headers | {"content-type": EVENT_STREAM, "connection": "close"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI. Problem before the beginning."""
        gateway, protocol = self._gateway, scope["extensions"][EXTENSION]
        if protocol.transport.is_closing():  # its end may have been told already, and it is not told twice
            while (await receive())["type"] != "http.disconnect":
                pass
            return
        address = gateway.admission.enter(scope["client"])
        try:
            gateway.admission.claim(self._identity.user)
            try:
                await self._serve(protocol, send)
            finally:
                gateway.admission.release(self._identity.user)
        finally:
            gateway.admission.leave(address)

    async def _serve(self, protocol: BoundedHttpProtocol, send: Send) -> None:
        gateway, connection = self._gateway, StreamConnection(protocol.transport, self._gateway)
        connection.identity = self._identity
        left = min(max(0.0, self._identity.expires_at - time.time()), LONGEST_S)
        connection.expires(asyncio.get_running_loop().time() + left, "the token has expired")
        protocol.stream = connection
        gateway.connections.add(connection)
        gateway.metrics.connections.labels("sse").inc()
        try:
            task = subscribe(gateway, connection, None, self._asked)
            await _either(connection.begun, task)
            if connection.over.is_set():  # the client went before the beginning
                return
            if connection.closing is not None:
                raise _ended(*connection.closing)
            if task.done():
                task.result()
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            back = random.randint(*BACK_MS)  # noqa: S311 - jitter
            await send({"type": "http.response.body", "body": b"retry: %d\n\n" % back, "more_body": True})
            task.add_done_callback(lambda done: _subscribed(connection, done))
            connection.flow()
            await connection.over.wait()
        finally:
            protocol.stream = None
            connection.lost()
            gateway.connections.discard(connection)
            gateway.metrics.connections.labels("sse").dec()


async def _either(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Wait until one of the two has come."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _ended(code: int, reason: str) -> Problem:
    """What a WebSocket is told by a close code."""
    return Problem(_CODES.get(code, "internal"), f"{reason.capitalize()}.")


def _subscribed(connection: StreamConnection, task: asyncio.Task[None]) -> None:
    """Half an answer can't be taken back: the client comes again with its last position, if that is not lost."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("event stream broken off error=%s", type(error).__name__, extra={"request": connection.id})
        connection.problem = error if isinstance(error, Problem) else None
        connection.close(4503, "broken off; come back")


CALLS = (_stream,)
