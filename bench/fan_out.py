"""A request to 100,000 users: how long until everybody has the notice, what a user costs beside a small request and
beside a notice that stands on the log already, and how much memory.
"""

from __future__ import annotations

import asyncio
import resource
import time
from typing import Any

import uvloop
from sqlalchemy import func, select

from bench.clock import settled, working
from bench.log import Log, log, raised
from projections.sql.schema import notices
from projections.sql.store import Store
from topics.catalogue import NOTICE_REQUESTS, NOTICES
from topics.events import NoticeRequested

USERS, SMALL, PARTITIONS = 100_000, 10_000, 4
LOOK_S = 0.05


def main() -> None:
    """Print seconds, CPU per user and the growth of memory, of a small and a large request."""
    with log(PARTITIONS) as made:
        uvloop.run(measure(made))


async def measure(made: Log) -> None:
    """One worker: first as many lone notices, then a small, then a large request."""
    url = f"sqlite:///{made.folder}/fan_out.db"
    store = Store(url)
    store.prepare()
    print("| what | seconds | CPU µs a user | largest memory so far (MB) |\n|---|---|---|---|")
    async with working(made, url):
        await settled(made, store)
        lone = [raised(i, SMALL, None) for i in range(SMALL)]
        await asyncio.to_thread(made.write, NOTICES, lone[:1])  # everything is loaded
        await settled(made, store)
        alone = await told(made, store, f"{SMALL:,} notices that stand on the log", NOTICES, lone[1:], SMALL - 1)
        small = await told(made, store, f"a request to {SMALL:,}", *request("small", SMALL))
        large = await told(made, store, f"a request to {USERS:,}", *request("large", USERS))
    print(
        f"\nA user of the large request costs {large / small:.2f} times one of the small, {large / alone:.1f} times a"
    )
    print("notice that need not be made, written and read back first.\n")


def request(name: str, size: int) -> tuple[str, list[tuple[str, NoticeRequested]], int]:
    """A direct condition for so many users."""
    event = NoticeRequested(
        event_id=name,
        producer="bench",
        occurred_at=0,
        subject="bench",
        key=name,
        request_key=name,
        users=tuple(f"{name}-{i}" for i in range(size)),
        lanes=(),
        forward="",
        severity="info",
        entity_type=None,
        entity_id=None,
        body=b'{"title":"Maintenance tonight","text":"From ten to eleven nothing can be ordered."}',
    )
    return NOTICE_REQUESTS, [("bench", event)], size


async def told(made: Log, store: Store, name: str, topic: str, events: list[tuple[str, Any]], size: int) -> float:
    """Print one row; CPU seconds a user, until all have it and nothing waits to be said."""
    count = select(func.count()).select_from(notices)

    def rows() -> int:
        with store.reading() as tx:
            return tx.execute(count).scalar_one()

    wanted = await asyncio.to_thread(rows) + size
    await asyncio.to_thread(made.write, topic, events)
    begun, spent = time.monotonic(), time.process_time()
    while await asyncio.to_thread(rows) < wanted:  # noqa: ASYNC110 - rows set no event
        await asyncio.sleep(LOOK_S)
    seconds = time.monotonic() - begun
    await settled(made, store)
    cpu = (time.process_time() - spent) / size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"| {name} | {seconds:.1f} | {cpu * 1e6:.0f} | {memory:.0f} |")
    return cpu
