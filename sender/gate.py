"""Rule 2 for the sender: nothing is sent from rows that have not folded the log up to the end noted before.

At the start, and again whenever the rows were wiped or restored, the ends of `deliveries` are noted and the rows waited
for. A lease that was inherited from a sender that never said what came of it waits in the same way: its result may be
on the log already.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from projections.sql.schema import STAMP
from projections.sql.store import NewerRows
from sender.patience import Patience
from sender.queue import Fold, Queue, RowsMoved
from topics.catalogue import DELIVERIES, Catalogue
from topics.cluster import Cluster
from topics.fetch import LogReader, Spot, reading

log = logging.getLogger(__name__)

LOOK_S = 0.05
SAY_S = 10.0


class NotYet(RuntimeError):
    """The rows can't be trusted now; the message says why."""


class Gate:
    """`fold` is what was found complete, or null while nothing may be sent."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue, queue: Queue, patience: Patience) -> None:
        self._cluster, self._catalogue, self._queue, self._patience = cluster, catalogue, queue, patience
        self.fold: Fold | None = None

    async def open(self) -> Fold:
        """The rows, complete up to the ends noted now. NotYet, NewerRows, KafkaError, the database's errors."""
        if self.fold is None:
            found = await self._rows()
            async with reading(self._cluster, self._catalogue) as reader:
                spots = reader.spots([DELIVERIES])
                ends = {s.partition: end for s, end in (await reader.ends(spots)).items()}
                await _same_log(reader, spots, found, ends)
            self.fold = await self._folded(ends, found)
            log.info("the queue is complete generation=%s ends=%s", self.fold.generation, ends)
        return self.fold

    def shut(self, why: str) -> None:
        """Nothing more until the rows are complete again."""
        if self.fold is not None:
            log.warning("sending waits until the read models are complete again: %s", why)
        self.fold = None

    async def caught_up(self, partitions: Iterable[int], fold: Fold) -> None:
        """Wait until the rows hold what is on these partitions now. RowsMoved, KafkaError, the database's errors."""
        async with reading(self._cluster, self._catalogue) as reader:
            ends = await reader.ends([Spot(DELIVERIES, p) for p in set(partitions)])
        await self._folded({s.partition: end for s, end in ends.items()}, fold)

    async def _rows(self) -> Fold:
        found = await self._patience.sql(self._queue.fold)
        if found is None:
            raise NotYet("no worker has made the read models yet")
        if found.stamp > STAMP:
            raise NewerRows(
                f"the database was written by a newer version (stamp {found.stamp}, this one knows {STAMP})"
            )
        if found.stamp < STAMP:
            raise NotYet("the read models are of an older version: a worker has to rebuild them")
        return found

    async def _folded(self, ends: dict[int, int], since: Fold) -> Fold:
        said = asyncio.get_running_loop().time() + SAY_S
        while True:
            found = await self._patience.sql(self._queue.fold)
            if found is None or not found.continues(since):
                raise RowsMoved("the read models are being rebuilt")
            behind = {p: end - found.next.get(p, 0) for p, end in ends.items() if found.next.get(p, 0) < end}
            if not behind:
                return found
            if asyncio.get_running_loop().time() > said:
                said += SAY_S
                log.warning("waiting for a worker to read the deliveries records_behind=%s", behind)
            await self._patience.rest(LOOK_S)


async def _same_log(reader: LogReader, spots: list[Spot], found: Fold, ends: dict[int, int]) -> None:
    """Rows that come from another log, or from a tail that the log has lost, will be rebuilt by a worker (rule 7)."""
    epochs = await reader.epoch(spots)
    other = [s.partition for s in spots if s.partition in found.epoch and found.epoch[s.partition] != epochs[s]]
    beyond = [p for p, end in ends.items() if found.next.get(p, 0) > end]
    if other or beyond:
        raise NotYet(
            f"the rows belong to another log (partitions {sorted({*other, *beyond})}): a worker has to rebuild them"
        )
