"""The clock: what a million pending forwards cost while nothing is due, how late a forward is, and how long it takes to
decide ten thousand that are due at once. The pending ones are rows, written as the fold writes them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager
from typing import Any

import uvloop
from sqlalchemy import func, select

from bench.figures import HEAD, percentile, spread
from bench.log import Log, log, raised
from projections.sql.schema import outbox, positions, steps
from projections.sql.store import Store, insert_all
from streams.worker import WorkerSettings, run
from topics.catalogue import NOTICES
from topics.events import Decided, Due, Record
from topics.fetch import Spot, reading
from topics.produce import Producer

PENDING, IDLE_S, LONE, BURST = 1_000_000, 30.0, 300, 10_000
PARTITIONS, USERS, CHUNK = 4, 1_000, 20_000
FAR_MS = 30 * 86_400_000


def main() -> None:
    """Print the three figures."""
    with log(PARTITIONS) as made:
        uvloop.run(measure(made))


async def measure(made: Log) -> None:
    """One worker, one database: first without anything that waits, then with PENDING steps."""
    database = f"sqlite:///{made.folder}/clock.db"
    store = Store(database)
    store.prepare()
    async with working(made, database):
        await settled(made, store)
        without = await idle()
    began = int(time.time() * 1000)
    for first in range(0, PENDING, CHUNK):
        with store.writing() as tx:
            insert_all(tx, steps, list(pending(first, began)))
    async with working(made, database):
        await settled(made, store)
        waiting = await idle()
        print(
            f"A worker at rest takes {without:.2%} of a core; while {PENDING:,} forwards wait, {waiting:.2%}.\n\n{HEAD}"
        )
        print(spread("a forward due → Due on the log, 50/s", await lateness(made, store)))
        decided, took = await burst(made, store)
    print(f"\n{BURST:,} due in one second: {decided:,} decided, the last {took:.1f} s after it was due.\n")


async def idle() -> float:
    """The share of a core that this process takes while nothing happens."""
    await asyncio.sleep(3)
    spent = time.process_time()
    await asyncio.sleep(IDLE_S)
    return (time.process_time() - spent) / IDLE_S


def pending(first: int, began: int) -> Iterator[dict[str, Any]]:
    """Steps that wait for some time between tomorrow and in a month."""
    for i in range(first, min(first + CHUNK, PENDING)):
        yield {
            "user_id": f"waiting-{i % USERS}",
            "notice_id": f"waiting-{i:012d}",
            "what": "forward",
            "step": "email",
            "partition": i % PARTITIONS,
            "channel": "email",
            "kind": "address",
            "value": "somebody@example.test",
            "number": 0,
            "due_at": began + 86_400_000 + i * 7919 % FAR_MS,
            "state": "waiting",
            "reason": "",
            "asked_offset": None,
            "asked_at": None,
            "asked_preferences": "",
            "scope": "",
            "told": None,
            "told_at": None,
            "held_in": "",
        }


@asynccontextmanager
async def working(made: Log, database: str) -> Any:
    """A worker in this process."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(WorkerSettings(made.cluster, made.catalogue, database, "clock"), stop))
    try:
        yield
    finally:
        stop.set()
        await task


async def settled(made: Log, store: Store) -> None:
    """Until every partition is folded and nothing waits to be said."""

    def rows() -> tuple[dict[tuple[str, int], int], int]:
        with store.reading() as tx:
            at = {(r.topic, r.partition): r.next for r in tx.execute(select(positions))}
            return at, tx.execute(select(func.count()).select_from(outbox)).scalar_one()

    async with reading(made.cluster, made.catalogue) as reader:
        while True:
            at, waiting = await asyncio.to_thread(rows)
            ends = await reader.ends(reader.spots({t for t, _ in at}))
            if at and not waiting and all(at.get(s) == end for s, end in ends.items()):
                return
            await asyncio.sleep(0.1)


async def lateness(made: Log, store: Store) -> list[float]:
    """Milliseconds from `due_at` to the log's time of the Due, of forwards that are due one by one."""
    before = await ends(made)
    producer = Producer(made.cluster, made.catalogue, "bench")
    await producer.start()
    for i in range(LONE):
        user, event = raised(i, USERS, after_ms=1_000)
        await producer.enqueue(NOTICES, user, event)
        await asyncio.sleep(0.02)
    await asyncio.sleep(2)
    await producer.stop()
    await settled(made, store)
    return [float(r.timestamp - r.event.due_at) for r in await since(made, before) if isinstance(r.event, Due)]


async def burst(made: Log, store: Store) -> tuple[int, float]:
    """How many were decided, and seconds from when the last was due to when the last was decided."""
    before = await ends(made)
    await asyncio.to_thread(made.write, NOTICES, (raised(LONE + i, USERS, after_ms=20_000) for i in range(BURST)))
    await asyncio.sleep(22)
    await settled(made, store)
    found = await since(made, before)
    due = [r.event.due_at for r in found if isinstance(r.event, Due)]
    decided = {r.event.event_id: r.timestamp for r in found if isinstance(r.event, Decided)}
    return len(decided), (max(decided.values()) - percentile(due, 1)) / 1000


async def ends(made: Log) -> dict[Spot, int]:
    """Where `notices` ends."""
    async with reading(made.cluster, made.catalogue) as reader:
        return await reader.ends(reader.spots([NOTICES]))


async def since(made: Log, before: dict[Spot, int]) -> list[Record]:
    """What was written on `notices` since."""
    out: list[Record] = []
    async with reading(made.cluster, made.catalogue) as reader:
        for spot, end in (await reader.ends(before)).items():
            out += [r async for r in reader.range(spot, before[spot], end) if isinstance(r, Record)]
    return out
