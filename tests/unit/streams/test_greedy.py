"""Which runs of records go into one batch: all that are there, and those that come in the rest after a busy one."""

import asyncio
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from streams import runtime
from streams.runtime import BATCH, ENOUGH, YIELDS, greedy


class Stream:
    """What an agent is given by Faust, as far as it is used."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[Any] = asyncio.Queue()

    def put(self, *sizes: int) -> None:
        for size in sizes:
            self.waiting.put_nowait(SimpleNamespace(value=range(size)))

    def end(self) -> None:
        self.waiting.put_nowait(None)

    def noack(self) -> "Stream":
        return self

    async def events(self) -> AsyncIterator[Any]:
        while (run := await self.waiting.get()) is not None:
            yield run


def sizes(batch: list[Any]) -> list[int]:
    return [len(run.value) for run in batch]


async def turns() -> None:
    for _ in range(10 * YIELDS):
        await asyncio.sleep(0)


async def test_all_that_waits_goes_together_up_to_a_full_batch() -> None:
    stream = Stream()
    stream.put(*[15] * 60, BATCH, 1)
    stream.end()
    assert [sizes(batch) async for batch in greedy(stream, rests=False)] == [[15] * 60 + [BATCH], [1]]


async def test_in_the_rest_after_a_batch_enough_is_gathered_but_a_first_one_waits_for_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runtime, "REST", 1e6)
    monkeypatch.setattr(runtime, "LONGEST_REST_S", 3600.0)
    stream = Stream()
    batches = greedy(stream, rests=True)
    stream.put(1)
    assert sizes(await anext(batches)) == [1]
    begun = time.process_time()
    while time.process_time() - begun < 0.005:
        pass
    gathered = asyncio.ensure_future(anext(batches))
    for size in (ENOUGH - 2, 1, 1):
        await turns()
        assert not gathered.done()
        stream.put(size)
    assert sizes(await gathered) == [ENOUGH - 2, 1, 1]
    rest = asyncio.ensure_future(anext(batches, None))
    stream.put(1)
    stream.end()
    assert sizes(await rest or []) == [1]
    assert [batch async for batch in batches] == []
