"""What it takes to explain: the story of the oldest notice in a partition of a million records, that notice found by
its id alone, an inbox as it was, and a page of history from the middle.
"""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from bench.log import Log, log, raised
from projections.explain import story
from projections.history import TOPICS, Past
from topics.catalogue import NOTICES
from topics.evidence import Receiver, evidence_of, receivers_of
from topics.read import HistoryReader
from topics.selection import Selection

RECORDS, USERS, PAGE = 1_000_000, 1_000, 200


def main() -> None:
    """Prints one table."""
    with log(1) as made:
        made.write(NOTICES, (raised(i, USERS, None) for i in range(RECORDS)))
        print(f"| one partition of {RECORDS:,} records, {USERS:,} users | seconds | of processor |\n|---|---|---|")
        for name, work in (
            ("the story of the oldest notice, from its place on (gateway)", _story),
            ("who has a notice, by its id alone (command line)", _found),
            ("an inbox of 1,000 notices as of now", _past),
            (f"a page of {PAGE} from the middle", _page),
            ("all of it, merged by time and not decoded", _merged),
        ):
            wall, processor = asyncio.run(_timed(made, work))
            print(f"| {name} | {wall:.1f} | {processor:.1f} |", flush=True)
        tracemalloc.start()
        asyncio.run(_timed(made, _story))
        print(f"\nMemory at most, of the first: {tracemalloc.get_traced_memory()[1] / 1e6:.0f} MB")


async def _timed(made: Log, work: Callable[[HistoryReader], Awaitable[Any]]) -> tuple[float, float]:
    reader = HistoryReader(made.cluster, made.catalogue)
    began, processor = time.perf_counter(), time.process_time()
    await reader.start()
    try:
        assert await work(reader)
    finally:
        await reader.stop()
    return time.perf_counter() - began, time.process_time() - processor


async def _story(reader: HistoryReader) -> object:
    name = f"notice-{0:012d}"
    return story("user-0", name, await evidence_of(reader, name, Receiver("user-0", 1)))


async def _found(reader: HistoryReader) -> object:
    return await receivers_of(reader, f"notice-{0:012d}")


async def _past(reader: HistoryReader) -> object:
    past = Past()
    for topic in TOPICS:
        async for record in reader.of_key(topic, "user-0"):
            past.take(record)
    return past.page("open", before=None, limit=50)


async def _page(reader: HistoryReader) -> object:
    middle = (await reader.at(reader.spots([NOTICES])[0], [RECORDS // 2]))[RECORDS // 2]
    found = []
    async for _, message in reader.merged(Selection((NOTICES,)).spots(reader), since=middle.timestamp):
        found.append(await reader.item(message))
        if len(found) == PAGE:
            break
    return found


async def _merged(reader: HistoryReader) -> object:
    count = 0
    async for _ in reader.merged(reader.spots([NOTICES])):
        count += 1
    return count > RECORDS


if __name__ == "__main__":
    main()
