"""Sends what waits in the outbox (rule 3): each lane oldest first, through one idempotent producer.

After an error, or 30 s after a lane's last send with rows still not read back, the lane begins again at its oldest row;
readers drop repeats by id.
"""

from __future__ import annotations

import asyncio
import logging
import time
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
                self._repeat(folding)
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

    def _repeat(self, folding: Folding) -> None:
        """Some lanes begin again at the oldest row.

        Those that were taken over, and those that wait too long for their records to come back.
        """
        self._cursor = {s: c for s, c in self._cursor.items() if s in folding.at}
        for spot in folding.at:
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
        for row in rows:
            future = await self._producer.enqueue_bytes(row.topic, row.key, row.value, list(row.headers) or None)
            future.add_done_callback(partial(self._answered, spot, row))
            self._cursor[spot] = (row.source_offset, row.position)
        if rows:
            self._sent_at[spot] = time.monotonic()
        if len(rows) == BATCH:
            self.wake(spot)

    def _answered(self, spot: Spot, row: Waiting, future: asyncio.Future[Placed]) -> None:
        if future.cancelled():
            return
        error = future.exception()
        if error is None:
            return
        log.warning("a send failed lane=%s/%d topic=%s error=%s", spot.topic, spot.partition, row.topic, error)
        if isinstance(error, NotOnTheLog) and error.final:
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
