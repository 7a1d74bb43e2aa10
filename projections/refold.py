"""Folds the log into one store at full speed: plain reads, large transactions, and nothing is decided or said.

The folds and transactions are the worker's own; only the way to them is shorter. Dead letters come first (rule 6), and
what follows from a record is folded before it, so that next to nothing passes through the outbox.
"""

from __future__ import annotations

import gc
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from projections.sql import positions, settling
from projections.sql.commit import commit
from projections.sql.folds import fold_of, folded_topics
from projections.sql.store import Store
from topics.catalogue import DEAD_LETTERS, Catalogue
from topics.codec import UnknownSchema
from topics.events import Record
from topics.fetch import Item, LogReader, Spot, to_item

BATCH, BATCH_BYTES = 20_000, 16 << 20
WAIT_MS = 10  # for what is not there: the next topic would have to wait as long
Told = Callable[[str, int], None]


@dataclass(slots=True)
class Refold:
    """`store`, whose generation is `rows_of`, has come to `at` of each partition. `seen` is told what was read."""

    store: Store
    rows_of: str
    seen: Callable[[Spot, Sequence[Item]], None] = lambda _spot, _items: None
    at: dict[Spot, tuple[int, int]] = field(default_factory=dict)
    _dead: set[tuple[str, int, int]] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)
    _most: int = BATCH

    def begin(self, epochs: Mapping[Spot, str], starts: Mapping[Spot, int]) -> None:
        """Nothing is folded yet: begin where the log does (`starts`), in these epochs."""
        with self.store.writing() as tx:
            for spot, epoch in epochs.items():
                positions.at_assignment(tx, spot, epoch, starts[spot])
                self.at[spot] = (starts[spot], 0)

    def take(self, spot: Spot, items: Sequence[Item]) -> None:
        """Fold these records of one partition, which follow on `at`. Bug, the database's errors."""
        fold = fold_of(spot.topic)
        self.seen(spot, items)
        if self._dead:
            self.refused += [
                i.event.event_id for i in items if isinstance(i, Record) and i.event and (*spot, i.offset) in self._dead
            ]
        while items:
            part = items[: self._most]
            at = self.at[spot]
            done = commit(self.store, fold, spot, part, at, self.rows_of, decider=None, mark=True)
            self.at[spot] = (done.next, done.done)
            folded = bisect_left(part, done.next, key=attrgetter("offset"))
            items = items[folded:]
            # One that the database refuses, or that is to very many, costs its whole batch: look for it in small ones.
            alone = not folded or folded == 1 < len(part)
            self._most = max(1, self._most // 8) if alone else min(BATCH, self._most * 4)

    def pass_over(self, spot: Spot, to: int) -> None:
        """Nothing readable stands before `to`: compacted away, or the marks of transactions."""
        with self.store.writing() as tx:
            positions.move(tx, spot, self.at[spot], (to, 0))
        self.at[spot] = (to, 0)

    def missing(self, until: Mapping[Spot, int]) -> int:
        """How many offsets are left to go."""
        return sum(max(0, end - self.at[s][0]) for s, end in until.items())

    def heard_of_the_dead(self) -> None:
        """Dead letters were read: know what they speak of."""
        with self.store.reading() as tx:
            self._dead = settling.dead(tx)

    def settle(self) -> None:
        """What was said and had no effect has been read back, too: it does not wait to be said."""
        with self.store.writing() as tx:
            settling.settle(tx, self.refused)


async def feed(reader: LogReader, catalogue: Catalogue, refold: Refold, until: Mapping[Spot, int], told: Told) -> None:
    """Fold up to exactly these offsets. `told(topic, n)`: n offsets of a topic are done. KafkaError and as `take`."""
    gc.disable()  # a third of the time, and nothing here makes cycles
    try:
        await _feed(reader, catalogue, refold, until, told)
    finally:
        gc.enable()


async def _feed(reader: LogReader, catalogue: Catalogue, refold: Refold, until: Mapping[Spot, int], told: Told) -> None:
    parts: defaultdict[str, dict[Spot, int]] = defaultdict(dict)
    for spot, end in until.items():
        if refold.at[spot][0] < end:
            parts[spot.topic][spot] = end
    for topic in sorted(parts, key=folded_topics(catalogue).index):
        await _feed_topic(reader, catalogue, refold, parts[topic], told)
        if topic == DEAD_LETTERS:
            refold.heard_of_the_dead()
    if parts:
        refold.settle()


async def _feed_topic(
    reader: LogReader, catalogue: Catalogue, refold: Refold, until: dict[Spot, int], told: Told
) -> None:
    hands: dict[Spot, list[Item]] = {s: [] for s in until}
    sizes = dict.fromkeys(until, 0)

    def fold(spot: Spot) -> None:
        before, items = refold.at[spot][0], hands[spot]
        hands[spot], sizes[spot] = [], 0
        refold.take(spot, items)
        told(spot.topic, refold.at[spot][0] - before)

    await reader.seek({s: refold.at[s][0] for s in until})
    while hands:
        for spot, messages in await reader.parts(500):
            if spot not in hands:
                continue
            wanted = messages if messages[-1].offset < until[spot] else [m for m in messages if m.offset < until[spot]]
            try:
                hands[spot] += [to_item(catalogue, m) for m in wanted]
            except UnknownSchema:
                hands[spot] += [await reader.item(m) for m in wanted]
            sizes[spot] += sum(len(m.value or b"") for m in wanted)
            if len(hands[spot]) >= BATCH or sizes[spot] >= BATCH_BYTES:
                fold(spot)
        for spot in list(hands):
            if await reader.position(spot) >= until[spot]:
                fold(spot)
                if refold.at[spot][0] < until[spot]:
                    refold.pass_over(spot, until[spot])
                del hands[spot]
                reader.pause(spot)


def starts_of(catalogue: Catalogue, spots: Iterable[Spot], starts: Mapping[Spot, int]) -> dict[Spot, int]:
    """What is kept for ever is read from 0, or not at all; the rest from what is still there."""
    topics = catalogue.topics()
    kept = {t.name for t in topics.values() if not t.compacted and t.keep_ms is None}
    return {s: 0 if s.topic in kept else starts[s] for s in spots}
