"""Who is told what on one channel: a frame is built once for all who watch with equal filters and rights, and handed to
all of them by one task.

What is said during a round goes out together with the next one, in one system call for each connection. Where there is
such, the task first rests for a part of the round's time, so that more comes to it: a frame costs a part of a call
then, and nothing waits as long as a round is over before the next frame comes. Each watcher has a place among its
group's frames, so that what is on its way can be handed to it before something else is: order holds on each connection.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

from api.expand.expansion import Expansion
from api.expand.lane import Lane
from api.live.filters import Filter
from api.live.frames import Batch, Frame
from api.metrics import Metrics
from api.tasks import must_not_fail

YIELD_AFTER = 200  # watchers told, or handshakes and pongs starve
REST = 0.2  # times the processor time of a round
LONGEST_REST_S = 0.015
WORTH_RESTING_S = 0.0005
MOST_BYTES = 1024 * 1024  # on their way; then the log is not read on


class Receiver(Protocol):
    """A connection."""

    def write(self, frame: Frame, *, at_once: bool = False) -> None:
        """One frame, after all that is on its way; `at_once`: with no other of this turn."""

    def deliver(self, batch: Batch) -> None:
        """Frames that others get, too."""

    def cut_off(self) -> None:
        """It does not keep up."""


class Watcher:
    """One subscription's end: frames are held back while its snapshot or replay goes out, and shared afterwards.

    `most_held` bytes; with more, `overrun`.
    """

    __slots__ = ("_bytes", "_most", "at", "expansion", "group", "held", "joined_at", "overrun", "receiver", "wanted")

    def __init__(
        self,
        receiver: Receiver,
        wanted: Filter | None,
        most_held: int,
        expansion: Expansion | None = None,
        overrun: Callable[[], None] | None = None,
    ) -> None:
        self.receiver, self._most = receiver, most_held
        self.wanted, self.expansion = wanted, expansion
        self.overrun = overrun or receiver.cut_off
        self.held: deque[Frame] | None = deque()
        self.group: Group | None = None
        self.at = self.joined_at = self._bytes = 0

    def tell(self, frame: Frame, *, at_once: bool = False) -> None:
        """One frame, now or when the held ones are gone."""
        if self.held is None:
            self.receiver.write(frame, at_once=at_once)
        elif self._bytes + _size(frame) <= self._most:
            self._bytes += _size(frame)
            self.held.append(frame)
        else:
            self.overrun()

    def release(self) -> None:
        """Hand over the frame that was held the longest."""
        if self.held:
            frame = self.held.popleft()
            self._bytes -= _size(frame)
            self.receiver.write(frame)

    def catch_up(self) -> None:
        """Hand over what is on its way to the group."""
        group = self.group
        if group is None or self.at == group.end:
            return
        pending = group.pending[self.at - group.start :]
        self.at = group.end
        self.take(Batch([frame for number, frame in pending if number > self.joined_at]))

    def take(self, batch: Batch) -> None:
        """Frames of the group."""
        if self.held is not None:
            for frame in batch.frames:
                self.tell(frame)
        elif batch.frames:
            self.receiver.deliver(batch)


class Group:
    """Those with equal filters and expansions. `pending`: frames on their way, with the numbers of their records."""

    __slots__ = ("end", "expansion", "lane", "pending", "start", "told_at", "wanted", "watchers")

    def __init__(self, wanted: Filter | None, expansion: Expansion | None, number: int) -> None:
        self.wanted, self.expansion = wanted, expansion
        self.lane: Lane | None = None  # what is fetched comes later, in a task of its own
        self.watchers: dict[Watcher, None] = {}
        self.pending: list[tuple[int, Frame]] = []
        self.start = self.end = 0  # places of the first pending frame and after the last
        self.told_at = number

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self.lane is not None:
            self.lane.stop()


class FanOut:
    """The groups of one channel."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self.groups: dict[Hashable, Group] = {}
        self._told: dict[Group, None] = {}
        self._bytes = 0
        self._stamps: list[int] = []  # the log's times of the records that are on their way
        self._task: asyncio.Task[None] | None = None
        self._room = asyncio.Event()

    def join(self, watcher: Watcher, number: int, lane: Callable[[Group, Expansion], Lane]) -> None:
        """It is told of every record after this one. `lane` makes one for those who share what is fetched."""
        key = _key(watcher)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(watcher.wanted, watcher.expansion, number)
            if watcher.expansion is not None:
                group.lane = lane(group, watcher.expansion)
        group.watchers[watcher] = None
        watcher.group, watcher.at, watcher.joined_at = group, group.end, number

    def leave(self, watcher: Watcher) -> None:
        """It is told what is on its way, and no more."""
        group = watcher.group
        if group is None:
            return
        watcher.catch_up()
        watcher.group = None
        group.watchers.pop(watcher, None)
        if not group.watchers:
            self.drop(group)

    def drop(self, group: Group) -> None:
        """No more of it."""
        self.groups = {key: kept for key, kept in self.groups.items() if kept is not group}
        group.close()

    def clear(self) -> None:
        """No more of any."""
        for group in self.groups.values():
            group.close()
        self.groups = {}

    def tell(self, group: Group, frame: Frame, number: int, stamp: int | None = None) -> None:
        """A frame for all of a group, in the order of numbers; `stamp`: the log's time of its record."""
        group.pending.append((number, frame))
        group.end += 1
        group.told_at = number
        self._bytes += len(frame.message)
        self._told[group] = None
        if stamp is not None:
            self._stamps.append(stamp)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(must_not_fail)

    async def room(self) -> None:
        """Wait until less is on its way."""
        while self._bytes > MOST_BYTES:
            self._room.clear()
            await self._room.wait()

    async def _run(self) -> None:
        while self._told:
            told, self._told = self._told, {}
            stamps, self._stamps = self._stamps, []
            spent = 0.0
            for group in told:
                spent += await self._hand_out(group)
            self._room.set()
            now = time.time()
            for stamp in stamps:
                self._metrics.fan_out.labels("entities").observe(max(0.0, now - stamp / 1000))
            rest = min(spent * REST, LONGEST_REST_S) if self._told else 0.0
            await asyncio.sleep(rest if rest > WORTH_RESTING_S else 0)
        self._task = None

    async def _hand_out(self, group: Group) -> float:
        """What is pending now, to all who watch now; the processor seconds it took."""
        self._told.pop(group, None)  # what was said since the round began goes along
        start, end = group.start, group.end
        pending = group.pending[: end - start]
        first, batch = pending[0][0], Batch([frame for _, frame in pending])
        watchers, spent = list(group.watchers), 0.0
        for i in range(0, len(watchers), YIELD_AFTER):
            began = time.thread_time()
            for watcher in watchers[i : i + YIELD_AFTER]:
                if watcher.at == start and watcher.joined_at < first and watcher.held is None:
                    watcher.at = end
                    watcher.receiver.deliver(batch)
                else:
                    watcher.catch_up()
            spent += time.thread_time() - began
            await asyncio.sleep(0)
        del group.pending[: end - start]
        group.start = end
        self._bytes -= sum(len(frame.message) for frame in batch.frames)
        self._metrics.frames.inc(len(watchers) * len(batch.frames))
        return spent


def _size(frame: Frame) -> int:
    """Bytes, with what Python itself needs."""
    return len(frame.message) + 256


def _key(watcher: Watcher) -> Hashable:
    """Those with equal ones are told the same."""
    name = watcher.wanted.name if watcher.wanted else ""
    if watcher.expansion is None:
        return name
    return name, watcher.expansion.name or id(watcher)
