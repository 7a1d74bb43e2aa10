"""Who is told what, in what order, and that its cost grows with what is said and with distinct filters."""

from __future__ import annotations

import asyncio

import pytest

from api.live import fan_out
from api.live.entities import LiveEntities
from api.live.fan_out import FanOut, Group, Watcher
from api.live.filters import Filter
from api.live.frames import Batch, Frame
from api.metrics import Metrics
from api.settings import Limits
from topics.catalogue import entity_topic
from topics.events import EntityChanged, Record


class Reader:
    """Keeps what it is told: batches as they came, and the numbers in them."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.numbers: list[int] = []
        self.slow = False

    def write(self, frame: Frame, *, at_once: bool = False) -> None:
        self.deliver(Batch([frame]))

    def deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.numbers += [int(f.position or 0) for f in batch.frames]

    def cut_off(self) -> None:
        self.slow = True


def watching(out: FanOut, number: int, wanted: Filter | None = None) -> tuple[Reader, Watcher]:
    reader = Reader()
    watcher = Watcher(reader, wanted, 10_000)
    watcher.held = None
    out.join(watcher, number, lambda *_: pytest.fail("no lane is asked for"))
    return reader, watcher


def say(out: FanOut, *numbers: int) -> None:
    for number in numbers:
        for group in out.groups.values():
            out.tell(group, Frame(b"{}", str(number)), number)


async def handed_out(*readers: Reader, last: int) -> None:
    async with asyncio.timeout(10):
        while any(not r.numbers or r.numbers[-1] != last for r in readers):  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0)


async def test_what_is_said_at_once_goes_out_together_and_is_joined_once_for_all() -> None:
    out = FanOut(Metrics())
    readers = [watching(out, 0)[0] for _ in range(500)]
    say(out, 1, 2, 3)
    await handed_out(*readers, last=3)
    assert {len(r.batches) for r in readers} == {1}
    assert {id(r.batches[0].message) for r in readers} == {id(readers[0].batches[0].message)}
    assert all(r.numbers == [1, 2, 3] for r in readers)


async def test_who_comes_goes_or_catches_up_on_the_way_misses_nothing_and_has_nothing_twice() -> None:
    out = FanOut(Metrics())
    (early, first), (leaving, second), (ahead, third) = (watching(out, 0) for _ in range(3))
    say(out, 1, 2)
    third.catch_up()
    late, _ = watching(out, 2)
    say(out, 3)
    out.leave(second)
    assert leaving.numbers == [1, 2, 3]
    say(out, 4)
    await handed_out(early, ahead, late, last=4)
    assert (early.numbers, ahead.numbers, late.numbers) == ([1, 2, 3, 4], [1, 2, 3, 4], [3, 4])
    assert leaving.numbers == [1, 2, 3]
    out.leave(first)
    say(out, 5)
    await handed_out(ahead, late, last=5)
    assert early.numbers == [1, 2, 3, 4]


async def test_between_two_chunks_of_readers_others_have_their_turn_and_order_holds_for_them() -> None:
    out = FanOut(Metrics())
    everybody = [watching(out, 0) for _ in range(3 * fan_out.YIELD_AFTER)]
    last_reader, last = everybody[-1]
    say(out, 1)
    while not everybody[0][0].numbers:  # noqa: ASYNC110 - the turns of the loop are what is looked at
        await asyncio.sleep(0)
    assert last_reader.numbers == []
    say(out, 2)  # while the first is being handed out
    last.catch_up()
    assert last_reader.numbers == [1, 2]
    out.leave(last)
    say(out, 3)
    await handed_out(*(r for r, _ in everybody[:-1]), last=3)
    assert last_reader.numbers == [1, 2]
    assert all(r.numbers == [1, 2, 3] for r, _ in everybody[:-1])


async def test_what_comes_while_a_snapshot_goes_out_is_held_in_order_and_bounded() -> None:
    out = FanOut(Metrics())
    reader, watcher = watching(out, 0)
    quick, _ = watching(out, 0)
    watcher.held = (held := Watcher(reader, None, 0).held)
    assert held is not None
    say(out, 1, 2)
    await handed_out(quick, last=2)
    assert reader.numbers == []
    while watcher.held:
        watcher.release()
    watcher.held = None
    say(out, 3)
    await handed_out(reader, quick, last=3)
    assert reader.numbers == [1, 2, 3]
    assert not reader.slow


async def test_a_log_that_is_faster_than_its_readers_waits_for_them() -> None:
    out = FanOut(Metrics())
    reader, _ = watching(out, 0)
    group: Group = next(iter(out.groups.values()))
    out.tell(group, Frame(b" " * fan_out.MOST_BYTES), 1)
    waiting = asyncio.create_task(out.room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await asyncio.wait_for(waiting, 10)
    assert len(reader.batches) == 1


@pytest.mark.parametrize("clients", [1, 300])
async def test_a_record_is_matched_once_for_each_distinct_filter_however_many_watch(clients: int) -> None:
    matched = 0

    def matches(entity: object) -> bool:
        nonlocal matched
        matched += 1
        return entity == {"n": 3}

    metrics = Metrics()
    live = LiveEntities("vm", Limits(), lambda: "p", metrics)
    for _ in range(clients):
        for name in range(10):
            live.join(Watcher(Reader(), Filter(str(name), matches), 10_000))
    for offset in range(4):
        event = EntityChanged(
            event_id=str(offset),
            producer="t",
            occurred_at=0,
            entity_type="vm",
            entity_id=str(offset),
            op="updated",
            body=b'{"n":%d}' % offset,
        )
        await live.take(Record(entity_topic("vm"), 0, offset, 0, str(offset), event, b""))
    assert matched == 4 * 10
