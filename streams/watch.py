"""Looks after a running worker: does it get on, and do its rows still belong to this log?

Whatever it finds that the worker can't mend ends the process (Restart): the next start is the resync.
"""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from projections.sql.store import Store, generation, is_away, next_offsets
from streams import belonging
from streams.folding import Folding, Restart
from streams.metrics import LAG
from topics.catalogue import Catalogue
from topics.fetch import LogReader, Spot, waiting_for_schema

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
QUIET_AFTER_S = 3.0
STUCK_AFTER_S = 15.0
CHECK_EVERY_S = 60.0
START_S = 30.0  # longer than the group waits for a member that is frozen


class Watch:
    """One per worker; `spots` are all partitions that are folded, by whichever worker."""

    def __init__(self, store: Store, reader: LogReader, catalogue: Catalogue, spots: list[Spot]) -> None:
        self._store, self._reader, self._catalogue, self._spots = store, reader, catalogue, spots
        self._left: dict[Spot, int] = {}
        self._lags: dict[Spot, int] = {}

    async def begin(self, folding: Folding, app: faust.App) -> None:
        """Start the consumer. An assignment whose connection went while the database was away is never ended by the
        client, and its partitions would be read by nobody: without progress for START_S it is a Restart.
        """
        start, seen = asyncio.ensure_future(app.start()), -1
        try:
            while not start.done():
                if folding.progress == seen:
                    msg = f"no partition was assigned for {START_S:g} s"
                    raise Restart(msg)
                seen = folding.progress
                await asyncio.wait({start}, timeout=START_S)
            start.result()
        finally:
            start.cancel()

    async def run(self, folding: Folding, app: faust.App) -> None:
        """Look every second, compare with the log every minute."""
        seen, since, checked = -1, time.monotonic(), time.monotonic()
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._store.replaced():
                msg = "the database's file is another one now"
                raise Restart(msg)
            if await folding.in_db(self._generation) != folding.rows_of:
                msg = "the rows were rebuilt"
                raise Restart(msg)
            behind = self._behind(folding, app)
            now = time.monotonic()
            if not behind or folding.progress != seen or waiting_for_schema:
                seen, since = folding.progress, now
            elif now - since > STUCK_AFTER_S:
                msg = f"{sum(behind.values())} records wait and nothing was folded for {STUCK_AFTER_S:g} s"
                raise Restart(msg)
            try:
                if behind and now - since > QUIET_AFTER_S:
                    await self._pass_over(folding, list(behind))
                if now - checked > CHECK_EVERY_S:
                    checked = now
                    await self._compare(folding)
            except Exception as error:
                if not isinstance(error, KafkaError) and not is_away(error):
                    raise
                log.warning("the log and the rows can't be compared now error=%s", type(error).__name__)
            self._reader.rest()

    def _generation(self) -> str:
        with self._store.reading() as tx:
            return generation(tx)[1]

    def _behind(self, folding: Folding, app: faust.App) -> dict[Spot, int]:
        """Partitions of ours with unread records, and how many."""
        found = {}
        assigned = app.consumer.assignment()
        for spot, at in list(folding.at.items()):
            tp = TP(self._catalogue.physical(spot.topic), spot.partition)
            lag = max(0, (app.consumer.highwater(tp) or 0) - at[0]) if tp in assigned else 0
            if self._lags.get(spot) != lag:
                self._lags[spot] = lag
                LAG.labels(spot.topic, str(spot.partition)).set(lag)
            if lag:
                found[spot] = lag
        return found

    async def _pass_over(self, folding: Folding, spots: list[Spot]) -> None:
        """What stands at the end and is no record for anybody (marks of transactions) is read, too."""
        for spot in spots:
            at = folding.at.get(spot)
            if at is not None and await belonging.first_from(self._reader, spot, at[0]) is None:
                await folding.pass_over(spot, at, await self._reader.position(spot))

    async def _compare(self, folding: Folding) -> None:
        epochs = await self._reader.epoch(self._spots)
        why = await belonging.difference(self._store, self._reader, self._catalogue, self._spots, epochs)
        if why:
            await asyncio.to_thread(belonging.rebuild, self._store, why)
            raise Restart(why)
        await folding.in_db(partial(belonging.thin, self._store, list(folding.at)))
        await self._nobody_left_out(folding)

    async def _nobody_left_out(self, folding: Folding) -> None:
        """A partition that nobody has read for a minute, though there is something to read, was lost by the group."""

        def read() -> dict[tuple[str, int], int]:
            with self._store.reading() as tx:
                return next_offsets(tx)

        at, ends = await folding.in_db(read), await self._reader.ends(self._spots)
        waiting = {s: at.get(s, 0) for s in self._spots if s not in folding.at and at.get(s, 0) < ends[s]}
        if lost := [s for s, n in waiting.items() if self._left.get(s) == n]:
            msg = f"nobody reads {lost[0].topic}/{lost[0].partition}"
            raise Restart(msg)
        self._left = waiting
