"""Shares of a rebuild in processes of their own: partitions of people and entities have no row in common.

What is said about them (requests, commands) is folded after them, by the rebuild itself. A share ends with the
process that began it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from multiprocessing.connection import wait
from typing import Any

from projections.refold import WAIT_MS, Refold, Told, feed
from projections.sql.shadow import Place
from projections.sql.store import Store
from topics.catalogue import DELIVERIES, NOTICES, Catalogue
from topics.cluster import Cluster
from topics.fetch import Spot, reading

FEW = 50_000  # offsets for which no process is worth its start
MOST = 4


class NotApart(RuntimeError):
    """A share failed, as it does where a stranger's record stands on a partition that is not its user's."""


@dataclass(frozen=True, slots=True)
class Share:
    """Fold these partitions up to `until` into the rows at `place`, which are of generation `rows_of`."""

    cluster: Cluster
    catalogue: Catalogue
    place: Place
    rows_of: str
    at: dict[Spot, tuple[int, int]]
    until: dict[Spot, int]


@dataclass(frozen=True, slots=True)
class Running:
    """A share at work; `done` is to be awaited once the rebuild's own part is."""

    share: Share
    process: Any
    pipe: Pipe

    async def done(self, told: Told) -> tuple[dict[Spot, tuple[int, int]], list[str]]:
        """Where it has come to, and the ids of what it saw refused. NotApart."""
        while True:
            try:
                what, *rest = await asyncio.to_thread(self.pipe.recv)
            except EOFError:
                raise NotApart("a process of the rebuild was ended") from None
            if what == "told":
                told(*rest)
            elif what == "failed":
                raise NotApart(*rest)
            else:
                return rest[0], rest[1]


def parted(until: Mapping[Spot, int], at: Mapping[Spot, tuple[int, int]]) -> list[dict[Spot, int]]:
    """The partitions of people and entities in as many parts as are worth a process, the first for the rebuild."""
    apart = {s: end for s, end in until.items() if s.topic in (NOTICES, DELIVERIES) or s.topic.startswith("entities.")}
    work = sum(max(0, end - at[s][0]) for s, end in apart.items())
    many = min(MOST, os.cpu_count() or 1, len({s.partition for s in apart}), work // FEW) or 1
    return [{s: end for s, end in apart.items() if s.partition % many == n} for n in range(many)]


@contextmanager
def at_work(shares: Iterable[Share]) -> Iterator[list[Running]]:
    """Begin them; none is left at the end."""
    spawning = multiprocessing.get_context("spawn")
    running = []
    try:
        for share in shares:
            ours, theirs = spawning.Pipe(duplex=False)
            process = spawning.Process(target=_fold, args=(share, theirs), daemon=True)
            process.start()
            theirs.close()
            running.append(Running(share, process, ours))
        yield running
    finally:
        for each in running:
            each.process.kill()
            each.process.join()
            each.pipe.close()


def _fold(share: Share, pipe: Pipe) -> None:
    """The process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who began it ends it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    store = Store(share.place.url, share.place.setup)
    try:
        refold = Refold(store, share.rows_of, at=share.at)
        refold.heard_of_the_dead()
        asyncio.run(_feed(share, refold, pipe))
        pipe.send(("done", refold.at, refold.refused))
    except Exception as error:  # noqa: BLE001 - told to the rebuild, which folds in one process then, and meets it there
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
    finally:
        store.close()


async def _feed(share: Share, refold: Refold, pipe: Pipe) -> None:
    def told(topic: str, events: int) -> None:
        pipe.send(("told", topic, events))

    async with reading(share.cluster, share.catalogue, WAIT_MS) as reader:
        await feed(reader, share.catalogue, refold, share.until, told)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
    os._exit(1)
