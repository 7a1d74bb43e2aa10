"""uvicorn's HTTP protocol with bounds on the head of a request: strangers send it before they say who they are."""

from __future__ import annotations

import asyncio
import logging

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

log = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024
HEAD_S = 10.0


class BoundedHttpProtocol(HttpToolsProtocol):
    """Cuts a connection off whose request line and headers are larger than HEAD_BYTES or take longer than HEAD_S."""

    _head = 0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head begins."""
        super().connection_made(transport)
        self._begin()

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self._timer is None:
            self._begin()

    def on_headers_complete(self) -> None:
        """The head is over."""
        self._end()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head."""
        if self._timer is not None:
            self._head += len(data)
        super().data_received(data)
        if self._timer is not None and self._head > HEAD_BYTES:
            self._cut_off()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any longer."""
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._head = 0
        self._timer = self.loop.call_later(HEAD_S, self._cut_off)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self) -> None:
        log.info("a request's head is too large or too slow bytes=%d", self._head)
        self._end()
        self.transport.abort()
