"""The inputs in their one order: (timestamp, topic, partition, offset), with ticks on their grid between them.

Only what is below the horizon H is given: H is read from the clock, then all end offsets are asked, then everything up
to them is read; so whatever has a timestamp < H is known. The tick at g comes before the first record with a timestamp
>= g, once H >= g. None is skipped.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from topics.fetch import Spot
from wrapper.change import Change

KEPT_RECORDS = 2000
KEPT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Tick:
    """`timestamp` is a multiple of the tick."""

    timestamp: int


class Inputs:
    """Buffers each partition from `positions` on and merges them; `now` is where the grid of ticks begins."""

    def __init__(self, positions: dict[Spot, int], now: int) -> None:
        self.tick_ms = 0
        self.horizon_at = 0
        self._ticked = now
        self._read = dict(positions)
        self._ends = dict(positions)
        self._kept: dict[Spot, deque[Change]] = {s: deque() for s in sorted(positions)}
        self._bytes = dict.fromkeys(positions, 0)
        self._last = dict.fromkeys(positions, 0)

    def add(self, change: Change) -> None:
        """The next record of its partition, where time never goes back, whatever the brokers' clocks did."""
        spot = change.spot
        self._last[spot] = max(self._last[spot], change.timestamp)
        if change.timestamp < self._last[spot]:
            change = replace(change, timestamp=self._last[spot])
        self._kept[spot].append(change)
        self._bytes[spot] += change.size
        self._read[spot] = max(self._read[spot], change.offset + 1)

    def reached(self, spot: Spot, offset: int) -> None:
        """Everything below `offset` was read; what is missing was compacted away."""
        self._read[spot] = max(self._read[spot], offset)

    def horizon(self, at: int, ends: dict[Spot, int]) -> None:
        """The clock showed `at`, and after that the partitions ended at `ends`."""
        self.horizon_at = max(self.horizon_at, at)
        self._ends.update(ends)

    @property
    def complete(self) -> bool:
        """Whether everything up to the ends of the last horizon was read."""
        return all(self._read[s] >= end for s, end in self._ends.items())

    def wait_ms(self, now: int) -> int | None:
        """How long until a new horizon is of use: 0 = take one, null = nothing to wait for but records."""
        if not self.complete:
            return None
        waits = [
            kept[0].timestamp + 1 - now for kept in self._kept.values() if kept and kept[0].timestamp >= self.horizon_at
        ]
        if self.tick_ms and self.next_tick > self.horizon_at:
            waits.append(self.next_tick - now)
        return max(0, min(waits)) if waits else None

    @property
    def next_tick(self) -> int:
        """The next multiple of the tick after the last one given."""
        return (self._ticked // self.tick_ms + 1) * self.tick_ms

    def full(self) -> Iterable[Spot]:
        """The partitions of which enough is kept: reading them rests."""
        return [s for s, kept in self._kept.items() if len(kept) >= KEPT_RECORDS or self._bytes[s] >= KEPT_BYTES]

    def hungry(self) -> Iterable[Spot]:
        """The partitions of which little is left."""
        return [
            s for s, kept in self._kept.items() if len(kept) < KEPT_RECORDS // 2 and self._bytes[s] < KEPT_BYTES // 2
        ]

    def peek(self) -> Change | Tick | None:
        """What comes next, if that is known."""
        first: Change | None = None
        for spot, kept in self._kept.items():  # sorted by topic and partition: the first of equal times wins
            if kept:
                if first is None or kept[0].timestamp < first.timestamp:
                    first = kept[0]
            elif self._read[spot] < self._ends[spot]:
                return None  # something smaller may still come from here
        if first is not None and first.timestamp >= self.horizon_at:
            first = None
        if self.tick_ms and self.next_tick <= self.horizon_at and (first is None or first.timestamp >= self.next_tick):
            return Tick(self.next_tick)
        return first

    def pop(self, item: Change | Tick) -> None:
        """`item` (the one that `peek` gave) was taken."""
        self._ticked = max(self._ticked, item.timestamp) if isinstance(item, Tick) else self._ticked
        if isinstance(item, Change):
            self._kept[item.spot].popleft()
            self._bytes[item.spot] -= item.size
