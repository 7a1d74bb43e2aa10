"""One transaction a batch: the fence, the dead letters, the chunks of a large request, the crash count."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

import projections.sql.commit as module
from projections.outgoing import Outgoing
from projections.sql import positions
from projections.sql.commit import Bug, OtherRows, commit, note_crash
from projections.sql.fan_out import FanOutFold
from projections.sql.fold import Decider
from projections.sql.folds import fold_of
from projections.sql.notices import NoticesFold
from projections.sql.schema import conditions, dead_letters, notices, outbox, steps
from projections.sql.store import Store, wipe
from topics.catalogue import NOTICE_REQUESTS, NOTICES
from topics.codec import decode, encode
from topics.events import Due, Event, Lane, NoticeEnded, NoticeMarked, NoticeRaised, NoticeRequested, Record
from topics.fetch import Item, Spot

BOX, DESK = Spot(NOTICES, 0), Spot(NOTICE_REQUESTS, 0)
DECIDER = Decider("test", 0)
STEPS = ((0, "email"), (1, "sms"))


@pytest.fixture
def store(database: Callable[[str], str]) -> Iterator[Store]:
    made = Store(database("t"))
    made.rows_of = made.prepare()  # type: ignore[attr-defined]
    with made.writing() as tx:
        for spot in (BOX, DESK):
            positions.at_assignment(tx, spot, "epoch")
    yield made
    made.close()


def rows_of(store: Store) -> str:
    return str(store.rows_of)  # type: ignore[attr-defined]


def record(spot: Spot, offset: int, event: Event, at: int = 1000) -> Record:
    return Record(spot.topic, spot.partition, offset, at, "ann", event, encode(event))


def fold(store: Store, spot: Spot, items: list[Item], at: tuple[int, int] = (0, 0)) -> module.Done:
    return commit(store, fold_of(spot.topic), spot, items, at, rows_of(store), decider=DECIDER)


def raised(notice: str = "n1", after: int = 50) -> NoticeRaised:
    return NoticeRaised(
        event_id=f"raised {notice}", producer="", occurred_at=0, notice_id=notice, user="ann", inbox=True,
        kind="direct", alert=None, config_id=None, key=None, entity_type=None, entity_id=None, severity="info",
        lanes=(Lane("email", "email", "address", "a@example.test", after),), forward="", body=b'{"title":"t"}',
    )  # fmt: skip


def requested(users: tuple[str, ...], key: str = "k") -> NoticeRequested:
    return NoticeRequested(
        event_id=f"r {key}", producer="", occurred_at=0, subject="shop", key=key, request_key=f"r {key}", users=users,
        lanes=(), forward="", severity="info", entity_type=None, entity_id=None, body=b"{}",
    )  # fmt: skip


def due(number: int, due_at: int) -> Due:
    return Due(
        event_id="due",
        producer="",
        occurred_at=0,
        user="ann",
        notice_id="n1",
        what="forward",
        step="email",
        number=number,
        due_at=due_at,
    )


def mark(how: str, cmd: str, until: int | None = None) -> NoticeMarked:
    return NoticeMarked(
        event_id=cmd, producer="", occurred_at=0, user="ann", cmd=cmd, mark=how, ids=("n1",), up_to=None, until=until
    )


def state(store: Store) -> tuple[int, str]:
    with store.reading() as tx:
        row = tx.execute(select(steps.c.number, steps.c.state).where(steps.c.what == "forward")).one()
        return row.number, row.state


def count(store: Store, table: Any) -> int:
    with store.reading() as tx:
        return tx.execute(select(func.count()).select_from(table)).scalar() or 0


def test_who_comes_second_loses_the_fence_and_changes_nothing(store: Store) -> None:
    fold(store, BOX, [record(BOX, 0, raised())])
    with pytest.raises(positions.FenceLost):
        fold(store, BOX, [record(BOX, 0, raised("other"))])
    assert count(store, notices) == 1


def test_rows_of_another_generation_are_left_alone(store: Store) -> None:
    with store.writing() as tx:
        wipe(tx)
        positions.at_assignment(tx, BOX, "epoch")
    with pytest.raises(OtherRows):
        fold(store, BOX, [record(BOX, 0, raised())])
    assert count(store, notices) == 0


def test_a_due_with_an_old_number_or_before_its_time_is_ignored(store: Store) -> None:
    fold(store, BOX, [record(BOX, 0, raised(after=50))])
    fold(store, BOX, [record(BOX, 1, due(0, 1050), at=1049)], (1, 0))
    assert state(store) == (0, "waiting")
    fold(store, BOX, [record(BOX, 2, mark("snoozed", "c", until=1100))], (2, 0))
    fold(store, BOX, [record(BOX, 3, due(0, 1050), at=2000)], (3, 0))
    assert state(store) == (1, "waiting")
    fold(store, BOX, [record(BOX, 4, due(1, 1100), at=2000)], (4, 0))
    assert state(store) == (1, "asked")


def test_one_record_may_ask_several_questions_and_say_something_itself(store: Store) -> None:
    lanes = tuple(Lane(c, c, "address", f"a@{c}.test", 0) for c in ("email", "sms"))
    told = replace(raised(), kind="condition", lanes=lanes, forward='{"tell_resolved":true}')
    fold(store, BOX, [record(BOX, 0, told), *(record(BOX, i + 1, replace(due(0, 1000), step=c)) for i, c in STEPS)])
    with store.reading() as tx:
        answers = [decode(v) for v in tx.execute(select(outbox.c.value).order_by(outbox.c.source_offset)).scalars()]
    fold(store, BOX, [record(BOX, i + 3, e) for i, e in enumerate(answers)], (3, 0))
    end = NoticeEnded(event_id="end", producer="", occurred_at=0, notice_id="n1", user="ann", body=b"")
    fold(store, BOX, [record(BOX, 5, end)], (5, 0))
    with store.reading() as tx:
        said = [decode(v) for v in tx.execute(select(outbox.c.value).where(outbox.c.source_offset == 5)).scalars()]
    assert sorted((type(e).__name__, getattr(e, "what", "")) for e in said) == [
        ("Decided", "resolved"),
        ("Decided", "resolved"),
        ("DeliveryCancelled", ""),
        ("DeliveryCancelled", ""),
    ]


def test_a_command_counts_once(store: Store) -> None:
    items = [raised(), mark("archived", "c1"), mark("unarchived", "c2"), mark("archived", "c1")]
    fold(store, BOX, [record(BOX, i, e) for i, e in enumerate(items)])
    with store.reading() as tx:
        assert tx.execute(select(notices.c.archived_at)).scalar() is None


def test_a_request_to_many_takes_several_transactions_and_loses_none(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 10)
    users = tuple(f"u{i}" for i in range(35))
    items: list[Item] = [record(DESK, 0, raised("x")), record(DESK, 1, requested(users))]
    at, seen = (0, 0), []
    while at[0] < 2:
        done = fold(store, DESK, [i for i in items if i.offset >= at[0]], at)
        at = (done.next, done.done)
        seen.append(at)
    assert seen == [(1, 0), (1, 10), (1, 20), (1, 30), (2, 0)]
    with store.reading() as tx:
        keys = (
            tx.execute(select(outbox.c.key).where(outbox.c.topic == NOTICES).order_by(outbox.c.position))
            .scalars()
            .all()
        )
    assert keys == list(users)


def test_between_the_first_and_the_last_chunk_a_request_is_not_folded_anew(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", 10)
    folded = []

    class Counting(FanOutFold):
        def apply(self, state: Any, record: Record) -> Sequence[Outgoing]:
            folded.append(record.offset)
            return super().apply(state, record)

    users = tuple(f"u{i}" for i in range(45))
    items: list[Item] = [record(DESK, 0, requested(users))]
    at: tuple[int, int] = (0, 0)
    rest: Sequence[Outgoing] = ()
    while at[0] < 1:
        done = commit(store, Counting(), DESK, items, at, rows_of(store), decider=DECIDER, rest=rest)
        at, rest = (done.next, done.done), done.rest
    assert folded == [0, 0]
    with store.reading() as tx:
        keys = tx.execute(select(outbox.c.key).order_by(outbox.c.position)).scalars().all()
        (audience,) = tx.execute(select(conditions.c.audience)).scalars().all()
    assert keys == list(users)
    assert [u for u, _ in json.loads(audience)] == list(users)


def test_requests_that_are_many_together_take_several_transactions(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 25)
    items: list[Item] = [record(DESK, i, requested(tuple(f"u{n}" for n in range(10)), f"r{i}")) for i in range(4)]
    assert fold(store, DESK, items).next == 3
    assert fold(store, DESK, items[3:], (3, 0)).next == 4
    assert count(store, outbox) == 40


def test_what_nobody_foresaw_names_its_record_and_becomes_a_dead_letter_the_third_time(
    store: Store,
) -> None:
    class Fails(NoticesFold):
        def apply(self, state: Any, item: Record) -> Any:
            if item.offset == 1:
                raise ZeroDivisionError
            return super().apply(state, item)

    items: list[Item] = [record(BOX, i, raised(f"n{i}")) for i in range(3)]
    at = (0, 0)

    def fold_all() -> None:
        nonlocal at
        while left := [i for i in items if i.offset >= at[0]]:
            done = commit(store, Fails(), BOX, left, at, rows_of(store), decider=DECIDER)
            at = (done.next, done.done)

    for attempt in (1, 2, 3):
        with pytest.raises(Bug) as caught:
            fold_all()
        assert caught.value.offset == 1
        assert note_crash(store, caught.value) == attempt
    fold_all()
    assert at == (3, 0)
    assert count(store, notices) == 2
    with store.reading() as tx:
        assert b'"bug"' in str(tx.execute(select(outbox.c.headers)).scalar()).encode()
    assert count(store, dead_letters) == 0
