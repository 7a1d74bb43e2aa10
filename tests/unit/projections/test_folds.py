"""What came early, twice, broken or out of order, and topics folded in another order than they were written in."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from projections.sql import outbox, positions
from projections.sql.commit import commit
from projections.sql.fold import Decider
from projections.sql.folds import fold_of
from projections.sql.schema import notices, proposals, steps
from projections.sql.store import Store
from topics.catalogue import COMMANDS, DEAD_LETTERS, MAX_RECORD_BYTES, NOTICE_REQUESTS, NOTICES, RECIPIENTS
from topics.codec import decode, encode
from topics.events import (
    AlertCommitted,
    AlertStarted,
    Cause,
    Decided,
    Due,
    Effect,
    Event,
    Lane,
    NoticeEnded,
    NoticeRaised,
    NoticeRequested,
    NoticeUpdated,
    RecipientChanged,
    RecipientProposed,
    Record,
)
from topics.fetch import Spot
from topics.ids import new_id

BOX, DESK, ORDERS, PEOPLE = Spot(NOTICES, 0), Spot(NOTICE_REQUESTS, 0), Spot(COMMANDS, 0), Spot(RECIPIENTS, 0)
NESTED = b'{"deadline_at":1,"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


class Rows:
    """A database and what is folded into it."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.rows_of = self.store.prepare()

    def fold(self, spot: Spot, events: Sequence[Event], start: int = 0, at: int = 1000, decider: bool = False) -> None:
        """The log of `spot` is `events` from offset `start` on."""
        log = [Record(*spot, start + i, at + i, "k", e, encode(e)) for i, e in enumerate(events)]
        with self.store.writing() as tx:
            p = positions.at_assignment(tx, spot, "epoch", start)
        before = p.next, p.done
        while left := [r for r in log if r.offset >= before[0]]:
            who = Decider("test", 0) if decider else None
            done = commit(self.store, fold_of(spot.topic), spot, left, before, self.rows_of, decider=who)
            before = done.next, done.done

    def said(self, spot: Spot) -> list[Event]:
        """What waits in a lane, but for dead letters."""
        with self.store.reading() as tx:
            return [decode(r.value) for r in outbox.lane(tx, spot, (-1, -1), 9999) if r.topic != DEAD_LETTERS]

    def refused(self, spot: Spot) -> list[tuple[int, str]]:
        """What waits to become a dead letter: (offset, reason)."""
        with self.store.reading() as tx:
            lane = outbox.lane(tx, spot, (-1, -1), 9999)
        return [(r.source_offset, dict(r.headers)["reason"].decode()) for r in lane if r.topic == DEAD_LETTERS]

    def all(self, query: Any) -> list[tuple[Any, ...]]:
        with self.store.reading() as tx:
            return [tuple(r) for r in tx.execute(query)]


@pytest.fixture
def rows(database: Callable[[str], str]) -> Iterator[Rows]:
    made = Rows(database("t"))
    yield made
    made.store.close()


@pytest.fixture
def rebuilt(database: Callable[[str], str]) -> Iterator[Rows]:
    """Another database, for the same log."""
    made = Rows(database("rebuilt"))
    yield made
    made.store.close()


def by_test() -> dict[str, Any]:
    return {"event_id": new_id(), "producer": "", "occurred_at": 0}


def effect(op: str, body: bytes = b'{"notice":{"title":"t"}}', after_ms: int = 0) -> Effect:
    lanes = (Lane("", "inbox", "recipient", "ann", 0), Lane("email", "email", "recipient", "bob", after_ms))
    return Effect(op, "k", "n1", 0, "c", "vm", "v1", "info", lanes, "", (), None, body)


def started() -> AlertStarted:
    return AlertStarted(**by_test(), alert="cpu", shard=0, shards=1, instance="i")


def committed(number: int, *effects: Effect, more: bool = False) -> AlertCommitted:
    """Of the run that began at offset 0."""
    return AlertCommitted(
        **by_test(), alert="cpu", shard=0, run=0, number=number, more=more, effects=effects, positions=(), now=0,
        state_changed=False, state=b"",
    )  # fmt: skip


def raised(notice_id: str = "n1", body: bytes = b'{"title":"t"}') -> NoticeRaised:
    return NoticeRaised(
        **by_test(), notice_id=notice_id, user="ann", inbox=True, kind="direct", alert=None, config_id=None, key=None,
        entity_type=None, entity_id=None, severity="info",
        lanes=(Lane("email", "email", "address", "a@example.test", 0),), forward="", body=body,
    )  # fmt: skip


def updated(cause_offset: int, body: bytes) -> NoticeUpdated:
    return NoticeUpdated(
        **by_test(), notice_id="n1", user="ann", cause_offset=cause_offset, cause_index=0, severity="high", push=True,
        body=body,
    )  # fmt: skip


def due() -> Due:
    return Due(**by_test(), user="ann", notice_id="n1", what="forward", step="email", number=0, due_at=1000)


def decided(body: bytes) -> Decided:
    return Decided(
        **by_test(), user="ann", notice_id="n1", what="forward", step="email", number=0, answer="deliver", reason="",
        until=None, body=body,
    )  # fmt: skip


# ------------------------------------------------------------------ another order of the topics
def test_a_rebuild_that_reads_the_notices_first_says_nothing_again(rows: Rows, rebuilt: Rows) -> None:
    effects = ["raise", "update", "update", "resolve", "raise", "update"]
    log = [started(), *(committed(1 + i, effect(op)) for i, op in enumerate(effects))]
    rows.fold(DESK, log)
    said = rows.said(DESK)
    assert len([e for e in said if isinstance(e, NoticeUpdated)]) == 6
    rebuilt.fold(BOX, said)
    rebuilt.fold(DESK, log)
    assert rebuilt.said(DESK) == []


def test_what_was_said_only_in_part_is_said_to_its_end(rows: Rows, rebuilt: Rows) -> None:
    log = [started(), committed(1, effect("raise")), committed(2, effect("update")), committed(3, effect("update"))]
    rows.fold(DESK, log)
    said = rows.said(DESK)
    rebuilt.fold(BOX, said[:4])
    rebuilt.fold(DESK, log)
    assert [e.event_id for e in rebuilt.said(DESK)] == [e.event_id for e in said[4:]]


def test_a_proposal_on_commands_made_anew_is_decided_though_an_older_log_went_further(rows: Rows) -> None:
    before = RecipientChanged(
        **by_test(), caused_by=(Cause("old", COMMANDS, 0, 57),), recipient_id="ann", version=4, body=b"{}"
    )
    proposal = RecipientProposed(**by_test(), recipient_id="ann", op="replace", based_on=4, body=b'{"name":"Ann"}')
    rows.fold(PEOPLE, [before], at=1_000)
    rows.fold(ORDERS, [proposal], start=3, at=2_000, decider=True)
    assert rows.all(select(proposals.c.outcome, proposals.c.version)) == [("accepted", 5)]
    assert [(type(e), e.version) for e in rows.said(ORDERS) if isinstance(e, RecipientChanged)] == [
        (RecipientChanged, 5)
    ]


def test_a_proposal_that_the_truth_answers_already_is_not_answered_again(rows: Rows) -> None:
    proposal = RecipientProposed(**by_test(), recipient_id="ann", op="replace", based_on=None, body=b"{}")
    accepted = RecipientChanged(
        **by_test(), caused_by=(Cause(proposal.event_id, COMMANDS, 0, 3),), recipient_id="ann", version=1, body=b"{}"
    )
    rows.fold(PEOPLE, [accepted], at=2_000)
    rows.fold(ORDERS, [proposal], start=3, at=1_000, decider=True)
    assert rows.all(select(proposals.c.outcome, proposals.c.version)) == [("accepted", 1)]
    assert rows.said(ORDERS) == []


# ------------------------------------------------------------------ broken records
def test_an_early_update_with_a_bad_body_is_refused_and_does_not_take_the_notice_with_it(rows: Rows) -> None:
    rows.fold(BOX, [updated(1, b"nope"), updated(2, b"[]"), updated(3, b'{"title":"new"}'), raised()])
    assert rows.all(select(notices.c.body, notices.c.severity)) == [('{"title":"new"}', "high")]
    assert [offset for offset, _ in rows.refused(BOX)] == [0, 1]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"nope", b"{}", b'{"deadline_at":Infinity}', b'{"deadline_at":1e300}', b'{"deadline_at":-1}', NESTED],
)
def test_a_decision_whose_body_is_none_is_refused_before_and_after_its_notice(rows: Rows, body: bytes) -> None:
    good = b'{"deadline_at":5,"address":"a@example.test"}'
    rows.fold(BOX, [decided(body), raised(), decided(body), due(), decided(body), decided(good)])
    assert [offset for offset, _ in rows.refused(BOX)] == [0, 2, 4]
    assert rows.all(select(steps.c.state)) == [("delivered",)]


def test_nothing_after_a_refused_commit_counts_until_the_next_start_and_that_is_seen(rows: Rows) -> None:
    log = [
        started(),
        committed(1, effect("raise", b"{}")),
        committed(2, effect("raise")),
        committed(3, effect("update")),
    ]
    rows.fold(DESK, log)
    assert rows.said(DESK) == []
    chain = "the chain is broken until the next start"
    assert [(offset, chain in reason) for offset, reason in rows.refused(DESK)] == [(1, False), (2, True), (3, True)]
    rows.fold(DESK, [started()], start=4)
    again = replace(committed(1, effect("raise")), run=4)
    rows.fold(DESK, [again], start=5)
    assert [e.notice_id for e in rows.said(DESK) if isinstance(e, NoticeRaised)] == ["n1", "n1"]


def test_one_bad_part_of_a_split_commit_is_refused_before_anything_of_it_is_said(rows: Rows) -> None:
    parts = [committed(1, effect("raise"), more=True), committed(2, effect("update", after_ms=-1))]
    rows.fold(DESK, [started(), *parts])
    assert rows.said(DESK) == []
    assert [offset for offset, _ in rows.refused(DESK)] == [2]


def test_a_request_that_leaves_no_room_for_its_notices_is_refused(rows: Rows) -> None:
    request = NoticeRequested(
        **by_test(), subject="shop", key=None, request_key="r", users=("ann",), lanes=(), forward="", severity="info",
        entity_type=None, entity_id=None, body=b'{"title":"' + b"x" * (MAX_RECORD_BYTES - 1000) + b'"}',
    )  # fmt: skip
    rows.fold(DESK, [request])
    assert rows.said(DESK) == []
    assert [offset for offset, _ in rows.refused(DESK)] == [0]


# ------------------------------------------------------------------ large records
def test_a_large_request_behind_others_is_cut_off_the_batch_and_folded_whole(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.sql.commit.CHUNK", 2)
    log = [
        started(),
        committed(1, effect("raise")),
        committed(2, effect("update"), effect("update")),
        committed(3, effect("resolve")),
    ]
    rows.fold(DESK, log)
    kinds = [NoticeRaised] * 2 + [NoticeUpdated] * 4 + [NoticeEnded] * 2
    assert [type(e) for e in rows.said(DESK)] == kinds
    assert len({e.event_id for e in rows.said(DESK)}) == len(kinds)
