"""Compares the read models with an independent fold of the log, up to exactly the positions at which they stand.

One snapshot of the rows is read, and the log is folded afresh into a scratch store, so that it runs beside a working
installation and changes nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from projections.rebuild import Progress, opened
from projections.refold import WAIT_MS, Refold, feed, starts_of
from projections.sql import positions
from projections.sql.commit import name_of
from projections.sql.compare import Difference, Limits, compared
from projections.sql.folds import folded_topics
from projections.sql.schema import STAMP
from projections.sql.shadow import bare, scratch
from projections.sql.store import Store, generation
from topics.catalogue import ALERT_REPORTS, COMMANDS, Catalogue
from topics.cluster import Cluster
from topics.fetch import Item, Spot, reading


class CannotVerify(RuntimeError):
    """Why not, and what to do, in a line."""


@dataclass(frozen=True, slots=True)
class Verified:
    """How many offsets were folded, how many rows compared, how many differences found."""

    events: int
    rows: int
    differences: int


@dataclass(slots=True)
class _Marks:
    """What the rows remember of the log (rule 7), compared as it is read."""

    known: dict[Spot, dict[int, str]]
    found: list[Difference]
    first_at: dict[Spot, int]

    def see(self, spot: Spot, items: Sequence[Item]) -> None:
        """These records are read."""
        if items:
            self.first_at.setdefault(spot, items[0].timestamp)
        known = self.known.get(spot)
        if known:
            for item in items:
                name = known.get(item.offset)
                if name is not None and name != (said := name_of(item)):
                    self.found.append(Difference("trail", (*spot, item.offset), "event_id", said, name))


async def verify(
    cluster: Cluster,
    catalogue: Catalogue,
    database: str,
    tell: Callable[[Progress], None],
    report: Callable[[Difference], None],
) -> Verified:
    """`report` each difference as it is found. CannotVerify, CannotRebuild, Bug, KafkaError, the database's errors."""
    with (
        closing(Store(database)) as live,
        tempfile.TemporaryDirectory(prefix="tidings-verify-") as folder,
        live.reading() as rows,
        closing(scratch(Path(folder) / "scratch.db")) as store,
    ):
        if generation(rows)[0] != STAMP:
            raise CannotVerify("the database has no rows of this version: start the worker")
        known = positions.trails(rows)
        halves = {s: at for s, (_, at, marks) in known.items() if marks and not marks[0][2]}
        found: list[Difference] = []
        async with reading(cluster, catalogue, WAIT_MS) as reader:
            spots = reader.spots(folded_topics(catalogue))
            epochs, starts = await opened(reader, spots)
            ends = await reader.ends(spots)
            found += _of_this_log({s: k for s, k in known.items() if s in ends}, epochs, ends)
            marks = _Marks({s: {o: e for o, e, at in m if at} for s, (_, _, m) in known.items()}, found, {})
            refold = Refold(store, bare(store), seen=marks.see)
            refold.begin(epochs, starts_of(catalogue, spots, starts))
            until = {s: min(ends[s], known[s][1]) for s in spots if s in known}
            total, done = refold.missing(until), 0

            def told(topic: str, events: int) -> None:
                nonlocal done
                done += events
                tell(Progress(topic, done, total))

            await feed(reader, catalogue, refold, until, told)
        limits = Limits(
            catalogue.entity_types, halves, starts[Spot(COMMANDS, 0)], marks.first_at.get(Spot(ALERT_REPORTS, 0), 0)
        )
        for difference in found:
            report(difference)
        many, count = len(found), 0
        with store.reading() as log:
            for each in compared(log, rows, limits):
                if isinstance(each, Difference):
                    report(each)
                    many += 1
                else:
                    count += each
        return Verified(done, count, many)


def _of_this_log(
    known: dict[Spot, tuple[str, int, list[tuple[int, str, int]]]], epochs: dict[Spot, str], ends: dict[Spot, int]
) -> Iterator[Difference]:
    """Rule 7: epoch and end."""
    for spot, (epoch, at, _) in known.items():
        if epoch and epochs[spot] and epoch != epochs[spot]:
            yield Difference("positions", spot, "epoch", epochs[spot], epoch)
        if at > ends[spot]:
            yield Difference("positions", spot, "next", ends[spot], at)
