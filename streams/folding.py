"""Folds batches of the log into rows: one step, for every topic alike.

Promise: each record counts once, in its partition's order, under any crash: rows, outbox and position move in one
transaction behind the fence. A database that is away makes it wait; whatever nobody foresaw ends the process, never
skips a record.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from projections.outgoing import Outgoing
from projections.sql import positions
from projections.sql.commit import Bug, OtherRows, commit, note_crash, sweep
from projections.sql.fold import Decider
from projections.sql.folds import fold_of
from projections.sql.store import Store, is_away
from streams.barrier import Barrier
from topics.catalogue import COMMANDS, DEAD_LETTERS, NOTICES, Catalogue
from topics.events import NoticeRaised, Record
from topics.fetch import Item, Spot
from topics.produce import now_us

log = logging.getLogger(__name__)

T = TypeVar("T")
At = tuple[int, int]
ASKING = (NOTICES, COMMANDS)


class Restart(RuntimeError):
    """This process can't go on with what it believes: it ends, and begins again as at a start (exit code 3)."""


class Folding:
    """Owns the positions of the partitions assigned to this worker. All SQL runs on one thread of its own."""

    def __init__(
        self,
        store: Store,
        catalogue: Catalogue,
        barrier: Barrier,
        producer: str,
        said: Callable[[Spot, tuple[int, int]], None],
    ) -> None:
        self.store, self.barrier = store, barrier
        self.at: dict[Spot, At] = {}
        self.progress = 0
        self.rows_of = ""
        self.waits_changed = asyncio.Event()  # what is due next may be another thing now
        self._ahead_ms = -float("inf")
        self.assignment: Callable[[], int] = lambda: 0
        self._topics = catalogue.topics()
        self._producer, self._said = producer, said
        self._folds = defaultdict(lambda: fold_of(DEAD_LETTERS), {t: fold_of(t) for t in barrier.topics})
        self._locks: defaultdict[Spot, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._swept: set[Spot] = set()
        self._marked: dict[Spot, int] = {}
        self._rest: dict[Spot, tuple[At, Sequence[Outgoing]]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sql")

    async def own(self, spots: Sequence[Spot], epochs: dict[Spot, str], starts: dict[Spot, int]) -> dict[Spot, int]:
        """These partitions are ours now: where to read on. What is kept for ever is read from 0, or not at all."""

        def start(spot: Spot) -> int:
            topic = self._topics[spot.topic]
            return starts.get(spot, 0) if topic.compacted or topic.keep_ms is not None else 0

        def read() -> dict[Spot, At]:
            with self.store.writing() as tx:
                found = {s: positions.at_assignment(tx, s, epochs.get(s, ""), start(s)) for s in spots}
                return {s: (p.next, p.done) for s, p in found.items()}

        self._swept.clear()
        self.at = await self.in_db(read)
        self.waits_changed.set()
        return {s: at[0] for s, at in self.at.items()}

    def disown(self, spots: Sequence[Spot]) -> None:
        """These partitions are somebody else's now; a batch in hand meets the fence."""
        for spot in spots:
            self.at.pop(spot, None)
            self._swept.discard(spot)

    async def fold(self, spot: Spot, items: Sequence[Item], assignment: int) -> None:
        """Fold a batch of one partition, read under `assignment`; returns when it is committed or not ours. Restart.

        After another assignment the partition is read anew from its position, so what was read before is dropped.
        """
        if spot.topic != DEAD_LETTERS:
            await self.barrier.dead_letters_read(self)
        async with self._locks[spot]:
            while assignment == self.assignment() and (at := self.at.get(spot)) is not None:
                items = [i for i in items if i.offset >= at[0]]
                if not items:
                    return
                self._no_gap(spot, at[0], items[0].offset)
                items = await self._commit(spot, items, at)
                await self._sweep(spot)

    async def pass_over(self, spot: Spot, at: At, to: int) -> None:
        """Nothing readable stands before `to` (a transaction's marks, say): go on from there."""

        def write() -> None:
            with self.store.writing() as tx:
                positions.move(tx, spot, at, (to, 0))

        async with self._locks[spot]:
            if self.at.get(spot) == at:
                try:
                    await self.in_db(write)
                except positions.FenceLost:
                    await self._read_again(spot, at)
                else:
                    self.at[spot] = (to, 0)

    async def sweep_all(self) -> None:
        """Decide what was asked before this worker was ready or owned the partition."""
        for spot in [s for s in self.at if s.topic in ASKING and s not in self._swept]:
            async with self._locks[spot]:
                await self._sweep(spot)

    def heard_ahead(self) -> float:
        """The broker's clock minus ours, at least, by what was folded since the last call: a wrong stamp is told once.

        Minus infinity where nothing was.
        """
        ahead, self._ahead_ms = self._ahead_ms, -float("inf")
        return ahead

    async def in_db(self, work: Callable[[], T]) -> T:
        """Run on the SQL thread; wait and try again for as long as the database is away."""
        wait = 0.05
        while True:
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, work)
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("the database is away, trying again in_s=%.2f error=%s", wait, type(error).__name__)
            self.progress += 1  # waiting for the database is no reason for the watchdog
            await asyncio.sleep(wait)
            wait = min(2.0, wait * 2)

    async def _commit(self, spot: Spot, items: Sequence[Item], at: At) -> Sequence[Item]:
        """One transaction; what is left of the batch."""
        decider = Decider(self._producer, now_us()) if self.barrier.ready else None
        newest = items[-1].timestamp
        mark = newest - self._marked.get(spot, 0) >= positions.TRAIL_STEP_MS
        half, rest = self._rest.pop(spot, (at, ()))
        work = partial(commit, self.store, self._folds[spot.topic], spot, items, at, self.rows_of)
        try:
            done = await self.in_db(partial(work, decider=decider, mark=mark, rest=rest if half == at else ()))
        except positions.FenceLost:
            await self._read_again(spot, at)
            return items
        except OtherRows as error:
            raise Restart(str(error)) from error
        except Bug as bug:
            log.critical(
                "a record can't be folded spot=%s/%d offset=%d", spot.topic, spot.partition, bug.offset, exc_info=bug
            )
            count = await self.in_db(partial(note_crash, self.store, bug))
            msg = f"ended {count} times because of {bug}"
            raise Restart(msg) from bug
        if spot in self.at:
            self.at[spot] = (done.next, done.done)
        if done.rest:
            self._rest[spot] = (done.next, done.done), done.rest
        self.progress += 1
        self._ahead_ms = max(self._ahead_ms, newest - time.time() * 1000)
        if mark:
            self._marked[spot] = newest
        if done.said:
            self._said(spot, done.said)
        if spot.topic == NOTICES and not all(map(_waits_for_nothing, items)):
            self.waits_changed.set()
        return [i for i in items if i.offset >= done.next]

    async def _read_again(self, spot: Spot, at: At) -> None:
        def read() -> At:
            with self.store.writing() as tx:
                p = positions.read(tx, spot)
                return p.next, p.done

        found = await self.in_db(read)
        if found < at:
            msg = (
                f"the position of {spot.topic}/{spot.partition} went back from {at[0]} to {found[0]}: "
                "another copy of the database"
            )
            raise Restart(msg)
        log.info("lost the fence spot=%s/%d at=%d now=%d", spot.topic, spot.partition, at[0], found[0])
        if spot in self.at:
            self.at[spot] = found

    async def _sweep(self, spot: Spot) -> None:
        at = self.at.get(spot)
        if at is None or spot.topic not in ASKING or spot in self._swept or not self.barrier.ready:
            return
        decider = Decider(self._producer, now_us())
        try:
            first = await self.in_db(
                lambda: sweep(self.store, self._folds[spot.topic], spot, at, self.rows_of, decider)
            )
            if first:
                self._said(spot, first)
        except positions.FenceLost:
            await self._read_again(spot, at)
            return
        except OtherRows as error:
            raise Restart(str(error)) from error
        self._swept.add(spot)

    def _no_gap(self, spot: Spot, expected: int, found: int) -> None:
        """Records are missing where none can be: the log and the position do not belong together."""
        topic = self._topics[spot.topic]
        if found > expected and not topic.compacted and topic.keep_ms is None:
            msg = f"records {expected} to {found - 1} of {spot.topic}/{spot.partition} are gone"
            raise Restart(msg)


def _waits_for_nothing(item: Item) -> bool:
    """A notice that is forwarded nowhere: the clock has not to look at once, as it does after everything else."""
    return isinstance(item, Record) and isinstance(item.event, NoticeRaised) and not item.event.lanes
