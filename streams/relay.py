"""Sends what waits in the outbox (rule 3): each lane oldest first, through one idempotent producer.

After an error, or 30 s after a lane's last send with rows still not read back, the lane begins again at its oldest row;
readers drop repeats by id.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from functools import partial

from projections.sql import outbox
from projections.sql.outbox import Waiting
from streams.folding import Folding
from topics.fetch import Spot
from topics.produce import NotOnTheLog, Placed, Producer

log = logging.getLogger(__name__)

BATCH = 500
REPEAT_AFTER_S = 30.0
LOOK_EVERY_S = 5.0
LARGE = 64 * 1024  # bytes: such a row goes by itself, so that a broker that takes no larger one refuses it alone
START = (-1, -1)


class Relay:
    """One per worker. `wake(spot)` after each commit that put something into its lane."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._cursor: dict[Spot, tuple[int, int]] = {}
        self._back: dict[Spot, tuple[int, int]] = {}
        self._sent_at: dict[Spot, float] = {}
        self._dirty: set[Spot] = set()
        self._wake = asyncio.Event()
        self._refused: list[tuple[Spot, Waiting, str]] = []

    def said(self, spot: Spot, first: tuple[int, int]) -> None:
        """There is something new in this lane, from `first` on. An answer to an old question has a place before what
        was sent already: the lane goes back to it.
        """
        offset, position = first
        self._go_back(spot, (offset, position - 1))

    def wake(self, spot: Spot) -> None:
        """Look at this lane."""
        self._dirty.add(spot)
        self._wake.set()

    def _go_back(self, spot: Spot, after: tuple[int, int]) -> None:
        """Kept apart from the cursor, which a batch that is being sent still moves."""
        self._back[spot] = min(after, self._back.get(spot, after))
        self.wake(spot)

    async def run(self, folding: Folding) -> None:
        """Send until cancelled; begins when the start's barrier is reached."""
        await folding.barrier.reached()
        looked = 0.0
        while True:
            if time.monotonic() - looked >= LOOK_EVERY_S:
                looked = time.monotonic()
                await self._repeat(folding)
            for spot in [s for s in self._dirty if s in folding.at]:
                await self._send(folding, spot)
            self._dirty &= folding.at.keys()
            await self._bury(folding)
            if not self._dirty:
                self._wake.clear()
                try:
                    await asyncio.wait_for(self._wake.wait(), LOOK_EVERY_S)
                except TimeoutError:
                    continue

    async def _repeat(self, folding: Folding) -> None:
        """Some lanes begin again at the oldest row.

        Those that were taken over, and those that wait too long for their records to come back.
        """

        def read() -> list[Spot]:
            with folding.store.reading() as tx:
                return outbox.lanes(tx)

        self._cursor = {s: c for s, c in self._cursor.items() if s in folding.at}
        for spot in await folding.in_db(read):
            if time.monotonic() - self._sent_at.get(spot, -REPEAT_AFTER_S) >= REPEAT_AFTER_S:
                self._cursor.pop(spot, None)
                self._dirty.add(spot)

    async def _send(self, folding: Folding, spot: Spot) -> None:
        after = self._cursor.get(spot, START)
        after = min(after, self._back.pop(spot, after))
        self._dirty.discard(spot)

        def read() -> list[Waiting]:
            with folding.store.reading() as tx:
                return outbox.lane(tx, spot, after, BATCH)

        rows = await folding.in_db(read)
        together: defaultdict[str, list[Waiting]] = defaultdict(list)
        for row in rows:
            if row.headers or row.key is None or len(row.value) > LARGE:
                for topic in [t for t in together if t == row.topic]:  # nothing overtakes anything
                    await self._send_all(spot, topic, together.pop(topic))
                future = await self._producer.enqueue_bytes(row.topic, row.key, row.value, list(row.headers) or None)
                future.add_done_callback(partial(self._answered, spot, row))
            else:
                together[row.topic].append(row)
        for topic, those in together.items():
            await self._send_all(spot, topic, those)
        if rows:
            self._cursor[spot] = (rows[-1].source_offset, rows[-1].position)
            self._sent_at[spot] = time.monotonic()
        if len(rows) == BATCH:
            self.wake(spot)

    async def _send_all(self, spot: Spot, topic: str, rows: list[Waiting]) -> None:
        for numbers, future in await self._producer.enqueue_all(topic, [(r.key or "", r.value) for r in rows]):
            future.add_done_callback(partial(self._answered, spot, rows[numbers[0]] if len(numbers) == 1 else None))

    def _answered(self, spot: Spot, row: Waiting | None, future: asyncio.Future[Placed]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            return
        log.warning("a send failed lane=%s/%d error=%s", spot.topic, spot.partition, error)
        if row is not None and isinstance(error, NotOnTheLog) and error.final:
            self._refused.append((spot, row, str(error)))
            self._wake.set()
        asyncio.get_running_loop().call_later(0.5, self._go_back, spot, START)

    async def _bury(self, folding: Folding) -> None:
        refused, self._refused = self._refused, []
        for spot, row, reason in refused:

            def write(spot: Spot = spot, row: Waiting = row, reason: str = reason) -> None:
                with folding.store.writing() as tx:
                    outbox.bury(tx, spot, row, reason)

            await folding.in_db(write)
            self.wake(spot)
