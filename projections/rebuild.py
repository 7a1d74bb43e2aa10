"""Rebuilds the read models from the log while the old ones go on serving, and swaps them in when it has caught up.

Nothing is written to the log. The swap is one transaction under the fence of all partitions, and makes a new
generation: workers, gateways and senders then begin as at a start (rule 2), so that nothing is said twice.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from projections.refold import WAIT_MS, Refold, feed, starts_of
from projections.shares import NotApart, Share, at_work, parted
from projections.sql.folds import folded_topics
from projections.sql.schema import STAMP
from projections.sql.shadow import Shadow, beside, failure_of, is_taken
from projections.sql.store import is_away
from projections.sql.swap import ALONE, FOLDED, Fence, fenced
from topics.catalogue import DEAD_LETTERS, Catalogue
from topics.cluster import Cluster
from topics.fetch import LogReader, Spot, reading

log = logging.getLogger(__name__)

LITTLE = 2_000  # offsets that may be left when the live rows are stopped: about a tenth of a second
TRIES = 10
ANSWER_S = 20.0


class CannotRebuild(RuntimeError):
    """Why not, and what to do, in a line or two."""


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` offsets; `topic` is the one that is being read."""

    topic: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was read (offsets), how long it took, and how long the live rows stood still at the end."""

    events: int
    seconds: float
    stood_s: float


async def rebuild(
    cluster: Cluster,
    catalogue: Catalogue,
    database: str,
    tell: Callable[[Progress], None],
    projections: Sequence[str] = (),
) -> Rebuilt:
    """Rebuild all, or only `projections` (of `projections.sql.swap.ALONE`). CannotRebuild, InTheWay, NewerRows, Bug,
    KafkaError, the database's errors; the live rows are then as they were.
    """
    begun = time.monotonic()
    with beside(database) as shadow:
        async with reading(cluster, catalogue, WAIT_MS) as reader, reading(cluster, catalogue) as looks:
            work = _Rebuild(cluster, reader, looks, catalogue, shadow, tell, projections)
            try:
                await work.read_it_all(in_shares=True)
            except NotApart as why:
                log.warning("folding in one process reason=%r", str(why))
                shadow.empty()
                work = _Rebuild(cluster, reader, looks, catalogue, shadow, tell, projections)
                await work.read_it_all(in_shares=False)
            stood_s = await work.swap()
    return Rebuilt(work.done, time.monotonic() - begun, stood_s)


class _Rebuild:
    """`looks` is never sent to a part of the log: it would have to learn who leads the rest anew, 0.1 s a topic."""

    def __init__(
        self,
        cluster: Cluster,
        reader: LogReader,
        looks: LogReader,
        catalogue: Catalogue,
        shadow: Shadow,
        tell: Callable[[Progress], None],
        projections: Sequence[str],
    ) -> None:
        self._cluster, self._reader, self._looks, self._catalogue = cluster, reader, looks, catalogue
        self._shadow, self._tell = shadow, tell
        self._only = frozenset(projections)
        wanted = [t for t in folded_topics(catalogue) if not self._only or _projection(t) in self._only]
        self._spots = reader.spots(dict.fromkeys([DEAD_LETTERS, *wanted]))
        self._tables = [t for p in projections for t in ALONE[p]] or FOLDED
        self._refold = Refold(shadow.store, "")
        self.done = self._total = 0

    async def read_it_all(self, *, in_shares: bool) -> None:
        """Fold the log as it stands, and what came meanwhile, until only a little is missing. NotApart."""
        self._refold.rows_of = self._shadow.begin()
        self._shadow.keep_crashes()
        epochs, starts = await opened(self._looks, self._spots)
        self._refold.begin(epochs, starts_of(self._catalogue, self._spots, starts))
        if in_shares:
            await self._read_in_shares(await self._until())
        while self._refold.missing(ends := await self._until()) > LITTLE:
            await self._catch_up(ends)
        self._shadow.complete()
        self._epochs = epochs

    async def _read_in_shares(self, ends: dict[Spot, int]) -> None:
        """People and entities by as many processes as are worth it; this one has a share, too."""
        await self._catch_up({s: end for s, end in ends.items() if s.topic == DEAD_LETTERS})
        self._total = self.done + self._refold.missing(ends)
        own, *others = parted(ends, self._refold.at)
        if not others:
            return
        shares = [
            Share(
                self._cluster,
                self._catalogue,
                self._shadow.share(number),
                self._refold.rows_of,
                {s: self._refold.at[s] for s in until},
                until,
            )
            for number, until in enumerate(others)
        ]
        with at_work(shares) as running:
            await self._catch_up(own)
            for each in running:
                at, refused = await each.done(self._told)
                self._refold.at.update(at)
                self._refold.refused += refused
        try:
            for share in shares:
                self._shadow.take_in(share.place)
        except Exception as error:
            if not is_taken(error):
                raise
            raise NotApart("two partitions speak of one user") from error

    async def swap(self) -> float:
        """Stop the live rows, catch up with them, take their place; for how long they stood still (s)."""
        why = ""
        for _ in range(TRIES):
            await self._catch_up(await self._until())
            await self._same_log()
            try:
                with fenced(self._shadow.live) as fence:
                    begun = time.monotonic()
                    until = await self._as_far_as(fence)
                    if self._refold.missing(until) > LITTLE:
                        why = "the worker folds faster than the rebuild can follow"
                        continue
                    await self._catch_up(until)
                    if self._only and any(self._refold.at[s] != (n, 0) for s, n in until.items()):
                        raise CannotRebuild("the rows went back: try again")
                    fence.replace(self._tables)
                return time.monotonic() - begun
            except Exception as error:
                if not is_away(error):
                    raise
                why = f"the database says: {failure_of(error)}"
                await asyncio.sleep(0.5)
        raise CannotRebuild(f"{why}: the rows could not be swapped in, try again")

    async def _until(self) -> dict[Spot, int]:
        """To the ends of the log; but not beyond the live rows where some of them stay, so that all hold together."""
        ends = await self._looks.ends(self._spots)
        if not self._only:
            return ends
        with fenced(self._shadow.live) as fence:
            return {s: min(end, fence.at[s].next if s in fence.at else 0) for s, end in ends.items()}

    async def _as_far_as(self, fence: Fence) -> dict[Spot, int]:
        """Where the live rows are, on this log."""
        ends = await self._looks.ends(self._spots)
        ours = {s: p for s, p in fence.at.items() if s in ends and p.next <= ends[s] and p.epoch == self._epochs[s]}
        if self._only and (fence.stamp != STAMP or any(s not in ours for s in self._spots)):
            raise CannotRebuild("the rows are of another log or of another version: rebuild all of them")
        return {s: p.next for s, p in ours.items()}

    async def _same_log(self) -> None:
        for spot, now in (await self._looks.epoch(self._spots)).items():
            if now and self._epochs[spot] and now != self._epochs[spot]:
                raise CannotRebuild(f"{spot.topic} was made anew meanwhile: run it again")

    async def _catch_up(self, until: dict[Spot, int]) -> None:
        self._total = max(self._total, self.done + self._refold.missing(until))
        await feed(self._reader, self._catalogue, self._refold, until, self._told)

    def _told(self, topic: str, events: int) -> None:
        self.done += events
        self._tell(Progress(topic, self.done, self._total))


async def opened(reader: LogReader, spots: list[Spot]) -> tuple[dict[Spot, str], dict[Spot, int]]:
    """The epoch and the first offset of each partition. CannotRebuild where the log is not there."""
    try:
        async with asyncio.timeout(ANSWER_S):
            empty = [s for s, end in (await reader.ends(spots)).items() if end == 0]
            if empty:
                raise CannotRebuild(f"{empty[0].topic} is not opened: run `tidings topics apply`")
            return await reader.epoch(spots), await reader.starts(spots)
    except TimeoutError as error:
        raise CannotRebuild("not all topics are there as declared: see `tidings topics list`") from error


def _projection(topic: str) -> str:
    return "entities" if topic.startswith("entities.") else topic
