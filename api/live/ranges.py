"""Going back on the log: a few readers of their own, lent to whoever replays a range, so that the live reader never
turns round.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from aiokafka.errors import OffsetOutOfRangeError

from api.problems import Problem
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.events import Record
from topics.fetch import Broken, LogReader, Spot

log = logging.getLogger(__name__)
READERS = 3
WAIT_MS = 20  # a fetch under way holds up the next one, at another place


class Ranges:
    """At most three replays at a time; the others wait."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue) -> None:
        self._cluster, self._catalogue = cluster, catalogue
        self._free: list[LogReader] = []
        self._turns = asyncio.Semaphore(READERS)

    async def stop(self) -> None:
        """Close the readers."""
        await asyncio.gather(*(r.stop() for r in self._free))
        self._free.clear()

    async def of_keys(self, spot: Spot, start: int, end: int, keys: Collection[str]) -> AsyncIterator[Record]:
        """The records of these keys in a range of a topic that is not compacted; only those are decoded. KafkaError."""
        if start >= end:
            return
        wanted = {key.encode() for key in keys}
        async with self._lent() as reader:
            await reader.seek({spot: start})
            while start < end:
                for message in await reader.poll(500):
                    if message.offset >= end:
                        return
                    start = message.offset + 1
                    if message.key in wanted and isinstance(record := await reader.decoded(message), Record):
                        yield record

    async def of_all(self, spot: Spot, start: int, end: int) -> AsyncIterator[Record | Broken]:
        """Every record in a range. KafkaError. Problem `position_lost` if the log does not have them all any more: what
        compaction took may have been the last word of a deleted entity.
        """
        if start >= end:
            return
        try:
            async with self._lent() as reader:
                async for record in reader.range(spot, start, end):
                    if record.offset != start:
                        break
                    start += 1
                    yield record
        except OffsetOutOfRangeError:
            log.info("a position from before the beginning of the log topic=%s partition=%d", *spot)
        if start != end:
            raise Problem("position_lost", "The log does not go back that far any more.")

    @asynccontextmanager
    async def _lent(self) -> AsyncIterator[LogReader]:
        async with self._turns:
            rested = self._free.pop() if self._free else None
            reader = rested or LogReader(self._cluster, self._catalogue, wait_ms=WAIT_MS)
            try:
                if rested is None:
                    await reader.start()
                yield reader
            except BaseException:
                await reader.stop()  # whatever went wrong with it, the next replay gets a fresh one
                raise
            reader.rest()
            self._free.append(reader)
