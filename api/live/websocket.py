"""`/v1/ws`: its handshake is answered where its head was parsed, and its frames come straight from the transport to its
conversation: a connection has no task, queue or timer of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake, InvalidState
from websockets.frames import Frame as Heard
from websockets.frames import Opcode
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from api.http.request_ids import HEADER, request_id
from api.live.connection import Connection
from api.live.conversation import Conversation
from api.problems import Problem

if TYPE_CHECKING:
    from api.gateway import Gateway

log = logging.getLogger(__name__)
_quiet = logging.getLogger("uvicorn.error")  # else what is said stands in debugging logs
EXTENSION = "tidings.protocol"
PATH = b"/v1/ws"
SUBPROTOCOL = "tidings.v1"
TOKEN_PREFIX = "tidings.token."  # noqa: S105 - a name, not a secret
PING = b"\x89\x00"
MOST_PIECES = 1_024  # of one message
ACCEPTED = "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: "


class Door:
    """Where a gateway's WebSockets come in: who may not is told why before the handshake."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        trusted = list(gateway.settings.trusted_proxies)
        self._proxies = ProxyHeadersMiddleware(_nowhere, trusted) if trusted else None

    def open(self, http: HttpToolsProtocol) -> None:
        """Answer the request that this protocol has just read; the connection is the transport's next protocol."""
        gateway, transport = self._gateway, http.transport
        headers = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in http.headers])
        name = request_id(_first(headers, HEADER))
        wire = ServerProtocol(state=OPEN, max_size=gateway.settings.limits.ws_message, logger=_quiet)
        method, version = http.parser.get_method().decode(), http.parser.get_http_version()
        request = Request(PATH.decode(), headers, method, f"HTTP/{version}")
        try:
            key, _, _ = wire.process_request(request)
            address = self._enter(headers, http)
        except InvalidHandshake:
            response = ServerProtocol(logger=_quiet).accept(request)
            response.headers[HEADER] = name
            transport.write(response.serialize())
            transport.close()
            return
        except Problem as problem:
            gateway.metrics.refused.labels(problem.code).inc()
            told = {"request": name}
            log.debug("connection refused code=%s reason=%s", problem.code, problem.detail, extra=told)
            transport.write(_refusal(problem, [*http.server_state.default_headers, (HEADER.encode(), name.encode())]))
            transport.close()
            return
        token, subprotocol = _offered(headers)
        chosen = f"sec-websocket-protocol: {subprotocol}\r\n" if subprotocol else ""
        answer = f"{ACCEPTED}{key}\r\n{chosen}{HEADER}: {name}\r\n\r\n"
        connection = WebSocketConnection(gateway, http, wire, address, name)
        http.connections.discard(http)
        http.parser = http.scope = None  # type: ignore[assignment]  # they hold it, too: nothing of it stays
        transport.set_protocol(connection)
        transport.write(answer.encode("latin-1"))
        connection.begin(token)

    def _enter(self, headers: Headers, http: HttpToolsProtocol) -> str:
        """Counted from here on; the address to `leave` with. Problem."""
        if self._gateway.draining:
            raise Problem("not_ready", "This gateway is going away.")
        if not welcome(self._gateway, _first(headers, "origin"), _first(headers, "host")):
            raise Problem("forbidden", "Pages of this origin are not let in: TIDINGS_ORIGINS names those that are.")
        scope: Any = {"type": "http", "client": http.client, "headers": http.headers}
        if self._proxies is not None:
            with contextlib.suppress(StopIteration):  # it has nothing to wait for
                self._proxies(scope, _nowhere, _nowhere).send(None)
        return self._gateway.admission.enter(scope["client"])


class WebSocketConnection(Connection, asyncio.Protocol):
    """Frames as WebSocket messages."""

    __slots__ = ("_address", "_binary", "_conversation", "_gateway", "_others", "_pieces", "_unheard", "_wire")

    def __init__(
        self, gateway: Gateway, http: HttpToolsProtocol, wire: ServerProtocol, address: str, name: str
    ) -> None:
        super().__init__(http.transport, gateway.metrics, gateway.settings.limits)
        self.id = name
        self._gateway, self._address, self._wire = gateway, address, wire
        self._others: set[Any] = http.connections  # of this server, which waits for them at its end
        self._pieces: list[bytes] = []  # of a message
        self._binary = self._unheard = False
        self._conversation = Conversation(gateway, self)

    def begin(self, token: str | None) -> None:
        """From here to the end, which gives the address back."""
        self._others.add(self)
        self._gateway.connections.add(self)
        self._gateway.metrics.connections.labels("websocket").inc()
        self._conversation.begin(token)

    # ---- what comes in
    def data_received(self, data: bytes) -> None:
        """Frames; whatever came, the client lives."""
        self._unheard = False
        self._wire.receive_data(data)
        if self._wire.parser_exc is not None:  # no WebSocket message, or too large: the close frame says so
            self._end()
            return
        for event in self._wire.events_received():
            if isinstance(event, Heard):
                self._hear(event)

    def _hear(self, frame: Heard) -> None:
        code = frame.opcode
        if code is Opcode.TEXT or code is Opcode.BINARY:
            self._binary = code is Opcode.BINARY
            self._piece(frame)
        elif code is Opcode.CONT:
            # There may be so many: a message's size bounds only those that are not empty.
            if len(self._pieces) < MOST_PIECES:
                self._piece(frame)
            elif self.open:
                self._fail(1009, "too many pieces")
        elif code is Opcode.PING:
            # The answer waits its turn: whoever pings and reads nothing is cut off as any slow reader is.
            pong = b"".join(self._wire.data_to_send())
            if self.open:
                self.send(pong)
        elif code is Opcode.CLOSE:  # the client goes: its close frame is answered, or is the answer to ours
            self._end()

    def _piece(self, frame: Heard) -> None:
        self._pieces.append(bytes(frame.data))
        if not frame.fin:
            return
        data, self._pieces = b"".join(self._pieces), []
        if not self.open:
            return
        try:
            text = "" if self._binary else data.decode()  # binary ones are no frames of ours
        except UnicodeDecodeError:
            self._fail(1007, "text that is no UTF-8")
        else:
            self._conversation.hear(text)

    # ---- its end
    def probe(self) -> None:
        """Cut off whoever said nothing since the last ping; ping again."""
        if self._unheard:
            log.info("silent connection cut off", extra={"request": self.id})
            self.abort()
            return
        self._unheard = True
        self.send(PING)

    def say_goodbye(self, code: int, reason: str) -> None:
        """The close frame; the answer to it ends the connection."""
        with contextlib.suppress(InvalidState):  # it has begun
            self._wire.send_close(code, reason)
            self.send(b"".join(self._wire.data_to_send()))

    def shutdown(self) -> None:
        """The server ends, and could not wait any longer."""
        self.close(1012, "")
        self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio calls it so
        """It is over."""
        self._others.discard(self)
        self._gateway.connections.discard(self)
        self._gateway.metrics.connections.labels("websocket").dec()
        self._gateway.admission.leave(self._address)
        self.lost()
        self._conversation.end()
        self._wire.parser.close()
        del self._conversation, self._wire  # they hold each other: or it stays until the next look for such

    def _fail(self, code: int, reason: str) -> None:
        self._wire.fail(code, reason)
        self._end()

    def _end(self) -> None:
        self.leave(b"".join(self._wire.data_to_send()))
        self._transport.close()


def welcome(gateway: Gateway, origin: str | None, host: str | None) -> bool:
    """Browsers say where a page came from: only our own origin, or one that the settings name."""
    if origin is None or origin in gateway.settings.origins:
        return True
    try:
        return urlsplit(origin).netloc == host
    except ValueError:
        return False


def _offered(headers: Headers) -> tuple[str | None, str | None]:
    """The token of the handshake, and the subprotocol to accept."""
    offered = [p.strip() for header in headers.get_all("sec-websocket-protocol") for p in header.split(",")]
    by_protocol = next((p for p in offered if p.startswith(TOKEN_PREFIX)), None)
    accepted = SUBPROTOCOL if SUBPROTOCOL in offered else by_protocol
    kind, _, header = (_first(headers, "authorization") or "").partition(" ")
    if kind.lower() == "bearer":
        return header.strip(), accepted
    return (by_protocol.removeprefix(TOKEN_PREFIX) if by_protocol else None), accepted


def _first(headers: Headers, name: str) -> str | None:
    """Of a doubled header the first holds."""
    return next(iter(headers.get_all(name)), None)


def _refusal(problem: Problem, more: list[tuple[bytes, bytes]]) -> bytes:
    response = problem.response()
    headers = Headers([(n.decode("latin-1"), v.decode("latin-1")) for n, v in (*response.raw_headers, *more)])
    headers["connection"] = "close"
    phrase = HTTPStatus(response.status_code).phrase
    return Response(response.status_code, phrase, headers, bytes(response.body)).serialize()


async def _nothing(*_: object) -> None:
    """An application for a request of which only the scope is asked."""


_nowhere: Any = _nothing
