"""`/v1/ws`: the handshake goes the way of every request; then nothing of it stays, and the client's frames come
straight from the protocol to its conversation.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection
from starlette.websockets import WebSocket
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame as Heard
from websockets.http11 import Request

from api.live.connection import Connection
from api.live.conversation import Conversation
from api.problems import Problem

if TYPE_CHECKING:
    from api.gateway import Gateway

log = logging.getLogger(__name__)
EXTENSION = "tidings.protocol"
SUBPROTOCOL = "tidings.v1"
TOKEN_PREFIX = "tidings.token."  # noqa: S105 - a name, not a secret
PING = b"\x89\x00"
MOST_PIECES = 1_024  # of one message


async def websocket(socket: WebSocket) -> None:
    """The endpoint: who may not come in is told why before the handshake; it ends with the handshake."""
    gateway: Gateway = socket.app.state.gateway
    try:
        if gateway.draining:
            raise Problem("not_ready", "This gateway is going away.")
        if not welcome(gateway, socket):
            raise Problem("forbidden", "Pages of this origin are not let in: TIDINGS_ORIGINS names those that are.")
        address = gateway.admission.enter(socket.scope["client"])
    except Problem as problem:
        gateway.metrics.refused.labels(problem.code).inc()
        log.debug("connection refused code=%s reason=%s", problem.code, problem.detail)
        await socket.send_denial_response(problem.response())
        return
    token, subprotocol = _offered(socket)
    try:
        await socket.accept(subprotocol)
    except BaseException:
        gateway.admission.leave(address)
        raise
    protocol: LiveProtocol = socket.scope["extensions"][EXTENSION]
    protocol.converse(gateway, address, token)


class WebSocketConnection(Connection):
    """Frames as WebSocket messages."""

    __slots__ = ("_protocol", "_unheard")

    def __init__(self, protocol: LiveProtocol, gateway: Gateway) -> None:
        super().__init__(protocol.transport, gateway.metrics, gateway.settings.limits)
        self._protocol = protocol
        self._unheard = False

    def heard(self) -> None:
        """Something came: the client lives."""
        self._unheard = False

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
        self._protocol.send_close(code, reason)


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol for the handshake; afterwards its messages go to a conversation, without a queue, a
    task or a timer of this connection's own.
    """

    _gateway: Gateway
    _connection: WebSocketConnection | None = None
    _conversation: Conversation
    _address: str

    def handle_connect(self, event: Request) -> None:
        """Adds this protocol to the scope; the application's task starts only after this."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: Any = self.scope["extensions"]
            extensions[EXTENSION] = self

    def converse(self, gateway: Gateway, address: str, token: str | None) -> None:
        """From here to the end, which gives `address` back. What only the handshake needed is dropped."""
        self._gateway, self._address = gateway, address
        self._connection = connection = WebSocketConnection(self, gateway)
        self._conversation = Conversation(gateway, connection)
        gateway.connections.add(connection)
        gateway.metrics.connections.labels("websocket").inc()
        self._conversation.begin(token)

    async def run_asgi(self) -> None:
        """As uvicorn's; the connection goes on when the application has nothing more to do with it."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            log.exception("handshake failed")
            self.send_500_response()
        if self._connection is None:
            self.transport.close()
            return
        del self.scope, self.request, self.response, self.queue, self.writable

    def data_received(self, data: bytes) -> None:
        """Frames; whatever came, the client lives."""
        if self._connection is not None:
            self._connection.heard()
        super().data_received(data)

    def send_receive_event_to_app(self) -> None:
        """A whole message; binary ones are no frames of ours."""
        if self._connection is None:
            super().send_receive_event_to_app()
            return
        data, self.frames = b"".join(self.frames), []
        if not self._connection.open:
            return
        try:
            self._conversation.hear(data.decode() if self.curr_msg_data_type == "text" else "")
        except UnicodeDecodeError:
            self.conn.fail(1007, "text that is no UTF-8")
            self.handle_parser_exception()

    def handle_cont(self, event: Heard) -> None:
        """A piece of a message, of which there may be so many: their size bounds only those that are not empty."""
        if len(self.frames) < MOST_PIECES:
            super().handle_cont(event)
        elif self._connection is not None and self._connection.open:
            self.conn.fail(1009, "too many pieces")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """The answer waits its turn: whoever pings and reads nothing is cut off as any slow reader is."""
        pong = b"".join(self.conn.data_to_send())
        if self._connection is not None and self._connection.open:
            self._connection.send(pong)

    def handle_pong(self, event: Heard) -> None:
        """It was heard already."""

    def handle_close(self, event: Heard) -> None:  # noqa: ARG002 - uvicorn calls it so
        """The client goes: its close frame is answered, or is the answer to ours."""
        self._end(b"".join(self.conn.data_to_send()))

    def handle_parser_exception(self) -> None:
        """What came is no WebSocket message, or too large: the close frame says so."""
        self._end(b"".join(self.conn.data_to_send()))

    def send_close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        try:
            self.conn.send_close(code, reason)
        except InvalidState:  # it has begun
            return
        if self._connection is not None:
            self._connection.send(b"".join(self.conn.data_to_send()))

    def _end(self, last: bytes) -> None:
        if self._connection is not None:
            self._connection.leave(last)
        self.transport.close()

    def shutdown(self) -> None:
        """The server ends, and could not wait any longer."""
        if self._connection is None:
            super().shutdown()
            return
        self._connection.close(1012, "")
        self.transport.close()

    def pause_writing(self) -> None:
        """The client does not read."""
        if self._connection is None:
            super().pause_writing()
        else:
            self._connection.pause_writing()

    def resume_writing(self) -> None:
        """It has read what the transport had."""
        if self._connection is None:
            super().resume_writing()
        else:
            self._connection.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        connection = self._connection
        if connection is None:
            super().connection_lost(exc)
            return
        self.connections.remove(self)
        self._gateway.connections.discard(connection)
        self._gateway.metrics.connections.labels("websocket").dec()
        self._gateway.admission.leave(self._address)
        connection.lost()
        self._conversation.end()


def welcome(gateway: Gateway, socket: HTTPConnection) -> bool:
    """Browsers say where a page came from: only our own origin, or one that the settings name."""
    origin = socket.headers.get("origin")
    if origin is None or origin in gateway.settings.origins:
        return True
    try:
        return urlsplit(origin).netloc == socket.headers.get("host")
    except ValueError:
        return False


def _offered(socket: WebSocket) -> tuple[str | None, str | None]:
    """The token of the handshake, and the subprotocol to accept."""
    offered: list[str] = socket.scope.get("subprotocols", [])
    by_protocol = next((p for p in offered if p.startswith(TOKEN_PREFIX)), None)
    accepted = SUBPROTOCOL if SUBPROTOCOL in offered else by_protocol
    kind, _, header = socket.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return header.strip(), accepted
    return (by_protocol.removeprefix(TOKEN_PREFIX) if by_protocol else None), accepted
