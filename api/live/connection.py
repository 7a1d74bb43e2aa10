"""One live connection: who it is, what it watches, and a writer that never waits and never piles up.

Frames go straight to the transport, which sends at once. What a client doesn't read waits in its own buffer, whose
frames are shared with others; beyond its size they are dropped, and the client is told to come back: it resumes by its
position and misses nothing, and costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from typing import Protocol

from api.access.tokens import Identity
from api.http.request_ids import current
from api.live.frames import Batch, Frame
from api.metrics import Metrics
from api.settings import Limits

log = logging.getLogger(__name__)
CORK_BYTES = 32 * 1024
PIECE_BYTES = 256 * 1024
CLOSE_S = 10.0  # for the client to answer the close frame
TOO_SLOW = (4504, "read too slowly; come back and resume")
TOO_SLOW_S = 5.0  # to read that


class Shared(Protocol):
    """A subscription's part in what is told to many."""

    def catch_up(self) -> None:
        """Hand over what is on its way to all."""


class Subscription(Protocol):
    """Something that a connection watches; `answered`: the client has had at least the beginning of its answer."""

    task: asyncio.Task[None] | None
    answered: bool

    @property
    def watcher(self) -> Shared:
        """Its part in what is told to all."""

    def stop(self) -> None:
        """Watch no longer."""


class Connection:
    """`limits.write_buffer`: bytes that may wait for the client to read."""

    __slots__ = (
        "_backlog",
        "_corked",
        "_corked_bytes",
        "_deadline",
        "_drained",
        "_limits",
        "_loop",
        "_metrics",
        "_overdue",
        "_paused",
        "_probe_at",
        "_reading",
        "_transport",
        "_waiting",
        "closing",
        "id",
        "identity",
        "look_at",
        "open",
        "subscriptions",
    )

    def __init__(self, transport: asyncio.Transport, metrics: Metrics, limits: Limits) -> None:
        self._transport, self._metrics, self._limits = transport, metrics, limits
        self.id = current.get()  # of the request that opened it; stands in what is logged about it
        self.identity: Identity | None = None
        self.subscriptions: dict[str, Subscription] = {}
        self.open = True  # whether frames still reach somebody
        self.closing: tuple[int, str] | None = None
        self._corked: list[bytes] = []
        self._corked_bytes = 0
        self._paused, self._reading = False, True
        self._backlog: deque[bytes] | None = None
        self._waiting = 0  # bytes in the backlog
        self._drained: asyncio.Event | None = None
        self._deadline, self._overdue = math.inf, ""
        self._loop = asyncio.get_running_loop()  # to ask for it costs a system call
        self._probe_at = self.look_at = self._loop.time() + limits.ping_interval
        transport.set_write_buffer_limits(0)  # so the transport says at once that the socket takes no more

    # ---- what goes out
    def write(self, frame: Frame | Batch, *, at_once: bool = False) -> None:
        """Hand over a frame of this connection's own, after all that was on its way to it. Such frames of one turn of
        the event loop go out together (the system call is most of what a frame costs), unless few come: then another
        turn would cost more.
        """
        if not self.open:
            return
        for subscription in self.subscriptions.values():
            subscription.watcher.catch_up()
        if not self._corked and not at_once:
            self._loop.call_soon(self._uncork)
        data = self.bytes_of(frame)
        self._corked.append(data)
        self._corked_bytes += len(data)
        if at_once or self._corked_bytes > CORK_BYTES:
            self._uncork()

    def deliver(self, batch: Batch) -> None:
        """Hand over frames that many share, at once."""
        if self.open:
            if self._corked:
                self._uncork()
            if self._paused:
                self.send(self.bytes_of(batch))
            else:  # as `send` does; this is most of what a gateway does
                self._transport.write(self.bytes_of(batch))

    def bytes_of(self, frames: Frame | Batch) -> bytes:
        """As they go over this connection's wire."""
        return frames.message

    def _uncork(self) -> None:
        frames, self._corked, self._corked_bytes = self._corked, [], 0
        if frames and self.open:
            self._metrics.frames.inc(len(frames))
            self.send(frames[0] if len(frames) == 1 else b"".join(frames))

    def send(self, data: bytes) -> None:
        """Bytes to the wire, in order."""
        if not self._paused:
            self._transport.write(data)
            return
        if self._backlog is None:
            self._backlog = deque()
        self._backlog.append(data)
        self._waiting += len(data)
        if self._waiting > self._limits.write_buffer:
            self.cut_off()

    def pause_writing(self) -> None:
        """The socket takes no more; the transport keeps the rest of one write."""
        self._paused = True

    def resume_writing(self) -> None:
        """The socket took what the transport had."""
        self._paused = False
        backlog = self._backlog
        while backlog and not self._paused:
            piece = [backlog.popleft()]
            size = len(piece[0])
            while backlog and size + len(backlog[0]) <= PIECE_BYTES:
                piece.append(backlog.popleft())
                size += len(piece[-1])
            self._waiting -= size
            self._transport.write(piece[0] if len(piece) == 1 else b"".join(piece))
        if not self._paused:
            self._backlog = None
            if self._drained is not None:
                self._drained.set()
                self._drained = None

    async def drained(self) -> bool:
        """Wait until the client has read what waits; false if it is gone."""
        self._uncork()
        if self._paused and self.open:
            if self._drained is None:
                self._drained = asyncio.Event()
            await self._drained.wait()
        return self.open

    # ---- what comes in
    def pause_reading(self, *, pause: bool) -> None:
        """Leave what the client says in its socket for now, or go on reading."""
        if pause == self._reading and not self._transport.is_closing():
            self._reading = not pause
            (self._transport.pause_reading if pause else self._transport.resume_reading)()

    def watch(self, channel: str, subscription: Subscription) -> None:
        """Until `unwatch`, or until the connection is over."""
        self.subscriptions[channel] = subscription
        self._metrics.subscriptions.labels(channel.partition("/")[0]).inc()

    def unwatch(self, channel: str) -> None:
        """Watch it no longer, if it is watched."""
        subscription = self.subscriptions.pop(channel, None)
        if subscription is not None:
            subscription.stop()
            self._metrics.subscriptions.labels(channel.partition("/")[0]).dec()

    # ---- its end
    def expires(self, at: float, reason: str) -> None:
        """Close it then (seconds of the event loop's clock), with 4401."""
        self._deadline, self._overdue = at, reason
        self.look_at = min(at, self._probe_at)

    def look(self, now: float) -> None:
        """What its time has come for. The gateway calls it at `look_at` or soon after it."""
        if now >= self._deadline:
            if self.open:
                self.close(4401, self._overdue)
            else:
                self.abort()
        elif now >= self._probe_at:
            self._probe_at = now + self._limits.ping_interval
            self.probe()
        self.look_at = min(self._deadline, self._probe_at)

    def probe(self) -> None:
        """Find out whether somebody is still there."""
        raise NotImplementedError

    def say_goodbye(self, code: int, reason: str) -> None:
        """Send the last word."""
        raise NotImplementedError

    def close(self, code: int, reason: str) -> None:
        """End it after all that was on its way. 44xx: fix something first; 45xx: come back."""
        if self.open:
            for subscription in self.subscriptions.values():
                subscription.watcher.catch_up()
            self._uncork()
        if self.open:  # or the last frames were too much
            self._leave(code, reason, CLOSE_S)

    def cut_off(self) -> None:
        """The reader is too slow. What waits is dropped, so that the close frame need not wait behind it."""
        if self.open:
            self._metrics.cut_off.inc()
            self._metrics.dropped.inc(self._waiting)
            user = self.identity.user if self.identity else "-"
            log.info("slow reader cut off user=%s bytes=%d", user, self._waiting, extra={"request": self.id})
            self._backlog, self._waiting = None, 0
            self._leave(*TOO_SLOW, TOO_SLOW_S)

    def leave(self, last: bytes) -> None:
        """The client goes, or can't be understood: `last` is what is still to be said."""
        self._uncork()
        self.send(last)
        self._gone(CLOSE_S)

    def abort(self) -> None:
        """End it without a word."""
        self._gone(0)
        self._transport.abort()

    def lost(self) -> None:
        """There is no transport any more."""
        self._gone(0)
        self._backlog = None
        self._paused = False

    def _leave(self, code: int, reason: str, seconds: float) -> None:
        self._metrics.closed.labels(str(code)).inc()
        if self.identity is not None and code // 100 == 44:  # strangers fill no log
            told = (code, reason, self.identity.user)
            log.info('connection ended code=%d reason="%s" user=%s', *told, extra={"request": self.id})
        self.closing = (code, reason)
        self._gone(seconds)
        self.say_goodbye(code, reason)

    def _gone(self, seconds: float) -> None:
        """Nothing more is written; after `seconds` it is over, whatever the client does."""
        self.open = False
        self._corked = []
        for channel in list(self.subscriptions):
            self.unwatch(channel)
        self._deadline = self.look_at = self._loop.time() + seconds
        if self._drained is not None:
            self._drained.set()
            self._drained = None
