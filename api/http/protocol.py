"""uvicorn's HTTP protocol with bounds on what strangers may hold open, a short way for plain notices, and the door of
WebSockets.

A head has a size and a time, since it is sent before anybody says who they are; a body has to go on coming.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from api.live import websocket
from api.live.connection import Connection
from api.live.websocket import EXTENSION, Door
from api.notices.short_cut import LARGEST, PATH, ShortCut, asked_by

log = logging.getLogger(__name__)

HEAD_BYTES = 64 * 1024
HEAD_S = 10.0
BODY_BYTES = 1024  # at least so many
BODY_S = 30.0  # in so many seconds


class BoundedHttpProtocol(HttpToolsProtocol):
    """Cuts a connection off whose request line and headers are larger than HEAD_BYTES or take longer than HEAD_S, or
    whose body comes more slowly than BODY_BYTES in BODY_S.
    """

    def __init__(self, *arguments: Any, door: Door, short_cut: ShortCut | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._door = door
        self._short_cut, self._short = short_cut, False
        self._part: Literal["head", "body", "none"] = "head"  # what is being read
        self._came, self._data = 0, b""
        self._timer: asyncio.TimerHandle | None = None
        self.stream: Connection | None = None  # whoever writes straight to the transport
        self._running: RequestResponseCycle | None = None
        self._again: RequestResponseCycle | None = None  # of all requests whose head was known
        self._answered = 0.0  # when the last one of the short way was (s of the loop's clock)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """The first head begins."""
        super().connection_made(transport)
        self._timer = self.loop.call_later(HEAD_S, self._cut_off)

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._part = "head"
        extensions: Any = {EXTENSION: self}
        self.scope["extensions"] = extensions

    def on_headers_complete(self) -> None:
        """The head is over: the body goes to the application, or is gathered for the short way."""
        self._part, self._came = "body", 0
        self._stop_timer()
        self._short = self._may_be_short()
        if not self._short:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The request is whole."""
        self._part, self._came = "none", 0
        self._stop_timer()
        super().on_message_complete()
        if self._short and self._short_cut is not None:
            self._short = False
            asked = asked_by(self.headers)
            if asked is not None and self._short_cut.take(self.cycle, asked, bytes(self.cycle.body)):
                self._short_cut.remember(self._data, self.headers, len(self.cycle.body))
            else:
                self._start_asgi_task(self.cycle, self.app)

    def data_received(self, data: bytes) -> None:
        """Count what came, and see to it that what has begun goes on."""
        if self._part == "none" and self._timer is None and self._known(data):
            return
        self._data = data
        self._came += len(data)
        super().data_received(data)
        self._data = b""
        if self._part == "head" and self._came > HEAD_BYTES:
            self._cut_off()
        elif self._timer is None and self.transport.get_protocol() is self and not self.transport.is_closing():
            if self._part == "head" or (self._part == "none" and _over(self.cycle)):  # line ends alone begin no request
                self._timer = self.loop.call_later(HEAD_S, self._cut_off)
            elif self._part == "body":
                self._came = 0
                self._timer = self.loop.call_later(BODY_S, self._look_at_body)

    def handle_websocket_upgrade(self) -> None:
        """The transport goes on to the live channel."""
        self._door.open(self)

    def _should_upgrade(self) -> bool:
        """Elsewhere, or behind an answer under way, who offers it is answered as if not (RFC 9110, 7.8)."""
        return self.url.partition(b"?")[0] == websocket.PATH and _over(self.cycle) and super()._should_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """One request goes to the application."""
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any longer."""
        self._stop_timer()
        if self._running is not None:  # uvicorn knows only the last of several requests that came together
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)
        if self.stream is not None:
            self.stream.lost()

    def pause_writing(self) -> None:
        """The client does not read."""
        if self.stream is None:
            super().pause_writing()
        else:
            self.stream.pause_writing()

    def resume_writing(self) -> None:
        """It has read what the transport had."""
        if self.stream is None:
            super().resume_writing()
        else:
            self.stream.resume_writing()

    def _may_be_short(self) -> bool:
        way = self._short_cut
        if (
            way is None
            or self.url != PATH
            or self.parser.get_method() != b"POST"
            or self.parser.get_http_version() != "1.1"
            or self.parser.should_upgrade()
            or self.expect_100_continue
            or self.flow.write_paused
            or not _over(self.cycle)
            or not way.open
        ):
            return False
        sizes = [value for name, value in self.headers if name in (b"content-length", b"transfer-encoding")]
        if len(sizes) != 1 or not sizes[0].isdigit() or int(sizes[0]) > LARGEST:
            return False
        self.scope["method"], self.scope["path"], self.scope["raw_path"] = "POST", PATH.decode(), PATH
        self.scope["query_string"] = b""
        self.cycle = self._short_cycle(keep_alive=self.parser.should_keep_alive())
        return True

    def _known(self, data: bytes) -> bool:
        """Whether this is one whole request that goes the short way, with a head that was parsed before, byte for byte:
        nothing of it is parsed again. Anything else is left to the parser, which knows nothing of this one.
        """
        way, before = self._short_cut, self.cycle
        head = way.known(data) if way is not None and way.open else None
        if way is None or head is None or not _over(before) or self.flow.write_paused:
            return False
        if self._again is None:
            self._again = self._short_cycle(keep_alive=True)
            self._again.more_body = False
        self.cycle = cycle = self._again
        cycle.default_headers = self.server_state.default_headers
        cycle.response_started = cycle.response_complete = False
        if not way.take(cycle, head.asked, data[head.size :]):
            cycle.response_started = cycle.response_complete = True
            self.cycle = before
            return False
        return True

    def _short_cycle(self, *, keep_alive: bool) -> RequestResponseCycle:
        return RequestResponseCycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=keep_alive,
            on_response=self._short_way_over,
        )

    def _short_way_over(self) -> None:
        """As `on_response_complete`, but the timer of an idle connection goes on: starting one for each request costs
        more than to look, when it ends, whether there was none since.
        """
        self._answered = self.loop.time()
        if self.pipeline or self.timeout_keep_alive_task is None:
            self.on_response_complete()
        else:
            self.server_state.total_requests += 1

    def timeout_keep_alive_handler(self) -> None:
        """Nothing has come for a while, by the parser."""
        self.timeout_keep_alive_task = None
        left = self._answered + self.timeout_keep_alive - self.loop.time()
        if not _over(self.cycle):
            return  # its answer begins anew
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        else:
            super().timeout_keep_alive_handler()

    def _look_at_body(self) -> None:
        self._timer = None
        if self._came < BODY_BYTES:
            self._cut_off()
        else:
            self._came = 0
            self._timer = self.loop.call_later(BODY_S, self._look_at_body)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut_off(self) -> None:
        log.info("a request is too large or too slow part=%s bytes=%d", self._part, self._came)
        self._stop_timer()
        self.transport.abort()


def _over(cycle: RequestResponseCycle | None) -> bool:
    """Whether the last request, if there was one, has been answered."""
    return cycle is None or cycle.response_complete
