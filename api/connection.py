"""One WebSocket connection: who it is, what it watches, and a writer that never waits and never piles up.

Frames go straight to the transport. What a client doesn't read stays in its own buffer; beyond the cap the connection
is cut off, so that a slow reader costs nobody else anything and misses nothing: it resumes by its token.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request

from api.frames import Frame
from api.metrics import Metrics
from api.request_ids import current
from api.tokens import Identity

log = logging.getLogger(__name__)
EXTENSION = "tidings.transport"
CORK_BYTES = 32 * 1024
UNREAD_PONGS = 8 * 1024 * 1024  # beyond what frames may wait


class DirectWebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which shows itself to the application so that ready-made frames can be written."""

    def handle_connect(self, event: Request) -> None:
        """Adds this protocol to the scope; the application's task starts only after this."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            extensions: Any = self.scope["extensions"]
            extensions[EXTENSION] = self

    def handle_ping(self) -> None:
        """Answers; whoever pings and reads no answer is cut off."""
        super().handle_ping()
        if self.transport.get_write_buffer_size() > UNREAD_PONGS:
            self.transport.abort()


class Subscription(Protocol):
    """Something that a connection watches; `answered`: the client has had at least the beginning of its answer."""

    task: asyncio.Task[None] | None
    answered: bool

    def stop(self) -> None:
        """Watch no longer."""


class Connection:
    """`cap`: bytes that may wait in the transport."""

    def __init__(self, protocol: DirectWebSocketProtocol, metrics: Metrics, cap: int) -> None:
        self._protocol, self._metrics, self._cap = protocol, metrics, cap
        self.id = current.get()  # of the request that opened it; stands in what is logged about it
        self.identity: Identity | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.closing: tuple[int, str] | None = None
        self.closed = asyncio.Event()
        self._corked: list[bytes] = []
        self._corked_bytes = 0

    @property
    def open(self) -> bool:
        """Whether frames still reach somebody."""
        p = self._protocol
        return self.closing is None and not (p.close_sent or p.disconnected or p.transport.is_closing())

    def write(self, frame: Frame) -> None:
        """Hand over a ready-made frame; cuts the connection off if its reader is too slow. Frames of one turn of the
        event loop go out together: the system call is most of what a frame costs.
        """
        if not self.open:
            return
        if not self._corked:
            asyncio.get_running_loop().call_soon(self._uncork)
        self._corked.append(frame.message)
        self._corked_bytes += len(frame.message)
        if self._corked_bytes > CORK_BYTES:
            self._uncork()

    def _uncork(self) -> None:
        frames, self._corked, self._corked_bytes = self._corked, [], 0
        if not frames or not self.open:
            return
        transport = self._protocol.transport
        transport.write(frames[0] if len(frames) == 1 else b"".join(frames))
        self._metrics.frames.inc(len(frames))
        if transport.get_write_buffer_size() > self._cap:
            self.cut_off()

    async def drained(self) -> bool:
        """Wait until the client has read most of what waits; false if it is gone."""
        self._uncork()
        await self._protocol.writable.wait()
        return self.open

    def cut_off(self) -> None:
        """The reader is too slow: end it without a closing handshake, which would wait in the same buffer."""
        if self.open:
            self._metrics.cut_off.inc()
            user = self.identity.user if self.identity else "-"
            log.info("slow reader cut off user=%s", user, extra={"request": self.id})
            self._protocol.transport.abort()

    def close(self, code: int, reason: str) -> None:
        """Ask for the end; the connection's own task sends it. 44xx: fix something first; 45xx: come back."""
        if self.closing is None:
            self._uncork()
            self.closing = (code, reason)
            self.closed.set()

    def stop_all(self) -> None:
        """Watch nothing any longer."""
        for subscription in list(self.subscriptions.values()):
            subscription.stop()
        self.subscriptions.clear()
