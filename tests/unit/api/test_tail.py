"""The hot tail: what it says came after a position did so, with the tokens that all had, in bounded memory."""

import tracemalloc
from collections.abc import Mapping
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.live.entities import Change, Entity
from api.live.filters import Filter, parse
from api.live.frames import Frame
from api.live.tail import UNKNOWN, Entry, Tail
from projections.sql.views.entities import EntityRow

PARTITIONS = 3
NOW = 1_700_000_000_000


def entity(partition: int, offset: int, body: str = '{"n":1}') -> Entity:
    return Entity(EntityRow(f"e{partition}", partition, offset, offset, NOW, body))


def frame(change: Change, position: str, wanted: Filter | None) -> Frame | None:
    return change.frame("entities/vm", "vm", position, wanted)


def token(vector: Mapping[int, int]) -> str:
    return ".".join(str(vector[p]) for p in sorted(vector))


class Log:
    """What is written, and what a gateway reads of it in some order."""

    def __init__(self, start: dict[int, int]) -> None:
        self.vector, self.read = dict(start), list[Entry]()

    def next(self, partition: int, body: str = '{"n":1}') -> Entry:
        offset = self.vector[partition]
        self.vector[partition] += 1
        change = Change(f"e{partition}", "updated", offset, NOW, None, entity(partition, offset, body))
        self.read.append(Entry(partition, offset, token(self.vector), change))
        return self.read[-1]


@settings(derandomize=True, max_examples=150, deadline=None)
@given(
    older=st.lists(st.integers(0, PARTITIONS - 1), max_size=12),
    newer=st.lists(st.integers(0, PARTITIONS - 1), max_size=25),
    back=st.lists(st.integers(0, 12), min_size=PARTITIONS, max_size=PARTITIONS),
    records=st.integers(4, 40),
    read_back=st.booleans(),
)
def test_it_hands_out_each_record_after_a_position_once_in_order_with_the_tokens_that_all_had(
    older: list[int], newer: list[int], back: list[int], records: int, *, read_back: bool
) -> None:
    log = Log(dict.fromkeys(range(PARTITIONS), 0))
    before = [log.next(p) for p in sorted(older)]  # one partition after the other, as it is read back
    tail = Tail(records, 10**6, frame)
    tail.begin(log.vector)
    for p in newer:
        tail.append(log.next(p))
    if read_back and tail.first == {p: older.count(p) for p in range(PARTITIONS)}:
        tail.prepend(before, dict.fromkeys(range(PARTITIONS), 0))
        assert tail.reaches(dict.fromkeys(range(PARTITIONS), 0))
    at = {p: max(0, n - back[p]) for p, n in log.vector.items()}
    if not tail.reaches(at):
        assert not tail.knows(at)
        return
    wanted = [e for e in log.read if e.offset >= at[e.partition]]
    found = tail.since(at)
    assert [e for _, e, _ in found] == wanted
    mine = dict(at)
    for number, entry, shared in found:
        mine[entry.partition] = entry.offset + 1
        assert not shared or entry.position == token(mine)
        sent = tail.frame(number, entry, None)
        assert sent is not None
        assert sent.position == entry.position
    if at in [dict(enumerate(map(int, e.position.split(".")))) for e in tail._entries]:
        assert all(shared for _, _, shared in found), "a token of this gateway is followed by the frames of all"
    for partition, offset in ((e.partition, e.offset) for e in wanted):
        assert tail.before(partition, offset) is not UNKNOWN


def test_equal_filters_share_their_frames_and_their_bytes() -> None:
    tail, log = Tail(100, 10**6, frame), Log({0: 0})
    tail.begin(log.vector)
    for n in range(20):
        tail.append(log.next(0, f'{{"n":{n}}}'))
    low, same = (parse({"key": "n", "op": "lt", "val": 15}) for _ in range(2))
    one, two = (tail.batches(tail.since({0: 5}), wanted) for wanted in (low, same))
    assert one is two
    assert len(one[0].frames) == 10
    assert one[0].message is two[0].message
    assert tail.batches(tail.since({0: 8}), low)[0].frames == one[0].frames[3:]


def test_what_many_ask_is_gathered_once_until_more_was_read() -> None:
    tail, log = Tail(100, 10**6, frame), Log({0: 0})
    tail.begin(log.vector)
    older = [log.next(0) for _ in range(3)]
    tail.begin(log.vector)
    for _ in range(20):
        tail.append(log.next(0))
    at = {0: 13}
    assert tail.since(at) is tail.since({0: 13})
    at[0] = 20
    assert [e.offset for _, e, _ in tail.since(at)] == [20, 21, 22]
    tail.append(log.next(0))
    assert [e.offset for _, e, _ in tail.since(at)] == [20, 21, 22, 23]
    assert len(tail.since({0: 3})) == 21
    tail.prepend(older, {0: 0})
    assert len(tail.since({0: 0})) == 24


def test_its_memory_is_bounded_whatever_is_read_and_asked_for() -> None:
    size = 1024 * 1024
    filters = [parse({"key": "n", "op": "ge", "val": n}) for n in range(8)]
    tail, log = Tail(1_000_000, size, frame), Log({0: 0})
    tail.begin(log.vector)
    tracemalloc.start()
    try:
        before: Any = None
        for n in range(2_000):
            entry = log.next(0, f'{{"n":{n},"list":[{",".join(["0.5"] * (n % 200))}]}}')
            log.read.clear()
            entry.change.before, before = before, entry.change.after
            tail.append(entry)
        for wanted in filters:
            batches = tail.batches(tail.since({0: max(tail.first[0], 1_600)}), wanted)
            assert all(batch.message for batch in batches)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tail.bytes <= size
    assert held <= size * 1.1
    assert len(tail.since({0: tail.first[0]})) > 200
