"""The judge of a run: compares the log, the rows and the mail server's book when all is quiet, and finds what is wrong.

It is a pure function of the evidence, so that it can be shown to find what is wrong: see test_judge.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.chaos.answers import right, until_is_right
from tests.chaos.evidence import Evidence, events
from tests.chaos.fold import Partition
from tests.chaos.mails import mailed
from tests.chaos.requests import wanted
from tests.chaos.told import Key, Lane, Question, Told
from topics.catalogue import CONTROLS, DEAD_LETTERS, DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.dead_letters import DeadLetter
from topics.events import (
    Decided,
    DeliveryCancelled,
    DeliveryRequested,
    DeliverySent,
    Due,
    NoticeMarked,
    NoticeRaised,
    Record,
    TokenRevoked,
)
from topics.fetch import Broken

NEAR_MS = 1_000
BEHIND_MS = 60_000  # so far may the rows of deliveries be behind those of notices, which decide


def judge(found: Evidence) -> dict[str, int]:
    """AssertionError for the first rule that was broken; else what was seen."""
    boxes = [Partition(items) for spot, items in found.log.items() if spot.topic == NOTICES]
    counts = _raised(found, boxes)
    _rows_are_the_log(found, boxes)
    counts |= _answered(found, boxes)
    counts |= _delivered(found, boxes)
    counts |= mailed(found)
    counts |= _untold(found, boxes)
    counts |= _nothing_dropped(found)
    races = Counter(first for box in boxes for first, apart in box.races.values() if apart <= NEAR_MS)
    counts |= {"races won by the reader": races["reader"], "races won by the Due": races["due"]}
    return counts


# ------------------------------------------------------------------ notices
def _raised(found: Evidence, boxes: list[Partition]) -> dict[str, int]:
    """None lost, none invented, none raised by two events, none that does not end."""
    raised: dict[Key, str] = {}
    over: set[Key] = set()
    for spot, items in found.log.items():
        if spot.topic == NOTICE_REQUESTS:
            mine, ended = wanted(items)
            raised |= mine
            over |= ended
    told = {k: t for box in boxes for k, t in box.told.items() if t.raised}
    lost = (raised.keys() | found.said.direct) - told.keys()
    assert not lost, f"{len(lost)} notices are lost, as {min(lost)}"
    invented = told.keys() - raised.keys() - found.said.direct
    assert not invented, f"{len(invented)} notices that nobody asked for, as {min(invented)}"
    by_alert = Counter((user, title) for (user, _), title in raised.items() if (user, title) in found.said.alert)
    assert by_alert == Counter(found.said.alert), "a change has not become exactly one notice a person"
    assert {k for k, t in told.items() if t.ended is not None} == over, "over, and not said so, or the other way round"
    assert {raised[k] for k in over} == found.said.over, "resolved other than the machines said"
    ids: dict[Key, set[str]] = {}
    for _, e in events(found, NOTICES):
        if isinstance(e, NoticeRaised):
            ids.setdefault((e.user, e.notice_id), set()).add(e.event_id)
    assert all(len(i) == 1 for i in ids.values()), "raised by two events"
    marks = {e.cmd for _, e in events(found, NOTICES) if isinstance(e, NoticeMarked)}
    assert found.said.marks <= marks, "a mark that was accepted is lost"
    every = [e.event_id for t in (NOTICES, NOTICE_REQUESTS, DELIVERIES) for _, e in events(found, t)]
    repeated = len(every) - len(set(every))
    dues = sum(isinstance(e, Due) for _, e in events(found, NOTICES))
    return {"events": len(every), "notices": len(told), "marks": len(marks), "Dues": dues, "records repeated": repeated}


def _rows_are_the_log(found: Evidence, boxes: list[Partition]) -> None:
    """Every row says what the log says: nothing is missing, nothing was applied twice."""
    rows = {(r["user_id"], r["notice_id"]): _flags(r) for r in found.rows["notices"]}
    told = {k: _state(t) for box in boxes for k, t in box.told.items()}
    assert len(rows) == len(found.rows["notices"])
    _equal("notices", rows, told)
    steps = {(r["user_id"], r["notice_id"], r["what"], r["step"]): _step(r) for r in found.rows["steps"]}
    lanes = {(*k, *name): _lane(lane) for box in boxes for k, t in box.told.items() for name, lane in t.lanes.items()}
    _equal("steps", steps, lanes)
    unread, unseen = Counter[str](), Counter[str]()
    for user, told_of in ((k[0], t) for box in boxes for k, t in box.told.items()):
        if told_of.raised and told_of.raised.inbox and not told_of.archived and told_of.snoozed is None:
            unread[user] += not told_of.read
            unseen[user] += not told_of.seen
    tallies = {r["user_id"]: (r["unread"], r["unseen"]) for r in found.rows["tallies"] if r["unread"] or r["unseen"]}
    fresh = {u: (unread[u], unseen[u]) for u in unread | unseen if unread[u] or unseen[u]}
    _equal("tallies", tallies, fresh)
    assert not found.rows["outbox"], "something has not left"


def _flags(r: dict[str, Any]) -> tuple[Any, ...]:
    times = (r["seen_at"], r["read_at"], r["archived_at"], r["ended_at"])
    return (*(t is not None for t in times), r["snoozed_until"], bool(r["stopped"]), r["raised_offset"])


def _state(t: Told) -> tuple[Any, ...]:
    return t.seen, t.read, t.archived, t.ended is not None, t.snoozed, t.stopped is not None, t.offset


def _step(r: dict[str, Any]) -> tuple[Any, ...]:
    return r["number"], r["state"], r["due_at"]


def _lane(lane: Lane) -> tuple[Any, ...]:
    return lane.number, lane.state, lane.due_at


def _equal(what: str, rows: dict[Any, Any], log: dict[Any, Any]) -> None:
    other = [(k, rows.get(k), log.get(k)) for k in rows.keys() | log.keys() if rows.get(k) != log.get(k)]
    assert not other, f"{what}: {len(other)} rows are not the log, as (key, row, log) {other[:3]}"


# ------------------------------------------------------------------ decisions
def _answered(found: Evidence, boxes: list[Partition]) -> dict[str, int]:
    """Every question has an answer, the right one, and no second one."""
    overruled = 0
    reasons: Counter[str] = Counter()
    for box in boxes:
        assert not box.unasked, f"answered, and never asked: {box.unasked[0]}"
        for key, question in box.questions.items():
            answer = box.answers.get(key)
            assert answer is not None, f"asked, and never answered: {key}"
            e = answer.event
            assert (e.answer, e.reason) in right(question, found.world), f"{key}: {e.answer} {e.reason}"
            if e.answer == "postpone":
                assert until_is_right(question, e), f"{key}: until {e.until}"
            reasons[f"{e.answer}: {e.reason}"] += 1
            overruled += _second_opinions(question, e, answer.others)
    counts = {"questions": sum(reasons.values())} | dict(sorted(reasons.items()))
    return counts | {"second opinions overruled": overruled}


def _untold(found: Evidence, boxes: list[Partition]) -> dict[str, int]:
    """Whoever was told of a condition is told of its end, unless that mail left only about when it was decided."""
    asked = {e.delivery_id: e for _, e in events(found, DELIVERIES) if isinstance(e, DeliveryRequested)}
    sent = {
        asked[e.delivery_id].caused_by[0].event_id: r.timestamp
        for r, e in events(found, DELIVERIES)
        if isinstance(e, DeliverySent)
    }
    late = 0
    for box in boxes:
        for key, answer in ((k, a) for k, a in box.answers.items() if a.event.reason == "not_told"):
            lanes = box.questions[key].told.lanes.values()
            told = [sent[d] for lane in lanes for d in (*lane.told, *lane.carried) if d in sent]
            assert all(at > answer.timestamp - BEHIND_MS for at in told), f"{key}: told, and not of the end"
            late += bool(told)
    return {"ends not told, of what left after all": late}


def _second_opinions(question: Question, first: Decided, others: Iterable[Decided]) -> int:
    """Repeats say the same; but under a throttle, after its rows were wiped, one may have looked at something else."""
    other = [e for e in others if (e.event_id, e.answer, e.reason) != (first.event_id, first.answer, first.reason)]
    assert not other or question.told.plan.get("throttle"), f"two decisions on one question: {first} {other[0]}"
    return len(other)


# ------------------------------------------------------------------ deliveries
def _delivered(found: Evidence, boxes: list[Partition]) -> dict[str, int]:
    """One delivery for each decision to deliver, and no other; recalled exactly where it was read, or over, after."""
    asked: dict[str, DeliveryRequested] = {}
    for _, e in events(found, DELIVERIES):
        if isinstance(e, DeliveryRequested):
            asked.setdefault(e.delivery_id, e)
    by_decision = Counter(e.caused_by[0].event_id for e in asked.values())
    decided = {a.event.event_id: a.event for box in boxes for a in box.answers.values() if a.event.answer == "deliver"}
    twice = [i for i, n in by_decision.items() if n > 1]
    assert not twice, f"{len(twice)} decisions were carried out twice"
    missing = decided.keys() - by_decision.keys()
    assert not missing, f"{len(missing)} not forwarded that should have been, as {decided[min(missing)]}"
    extra = by_decision.keys() - decided.keys()
    assert not extra, f"{len(extra)} forwarded that should not have been"
    carried = {d: ids for box in boxes for d, ids in box.carried.items()}
    for e in asked.values():
        meant = decided[e.caused_by[0].event_id]
        assert (e.user, e.notice_id, e.step) == (meant.user, meant.notice_id, meant.step), "delivered to somebody else"
        if ids := carried.get(meant.event_id):
            body = json.loads(e.body)
            assert body["count"] == len(ids), "a digest has lost something"
            assert set(body["notices"]) <= set(ids), "a digest names what it does not hold"
    recalled = {e.delivery_id for _, e in events(found, DELIVERIES) if isinstance(e, DeliveryCancelled)}
    sent = {e.delivery_id for _, e in events(found, DELIVERIES) if isinstance(e, DeliverySent)}
    cancelled = {d for box in boxes for d in box.cancelled}
    assert {asked[i].caused_by[0].event_id for i in recalled} <= cancelled, "recalled, though nobody had read it"
    left = cancelled - {asked[i].caused_by[0].event_id for i in recalled | sent}  # what is sent needs no recall
    assert not left, f"{len(left)} read or over while they waited to be sent, and not recalled"
    rows = {r["delivery_id"] for r in found.rows["delivery_requests"]}
    assert rows == asked.keys(), "the rows of deliveries are not the log"
    return {"deliveries": len(asked), "of these recalled": len(recalled), "digests": len(carried)}


# ------------------------------------------------------------------ dead letters
def _nothing_dropped(found: Evidence) -> dict[str, int]:
    """Exactly what nobody could take is a dead letter, once in the rows."""
    poison = {
        (*spot, item.offset)
        for spot, items in found.log.items()
        if spot.topic in found.folded and spot.topic != DEAD_LETTERS
        for item in items
        if isinstance(item, Broken)
        or (isinstance(item, Record) and isinstance(item.event, TokenRevoked) and spot.topic != CONTROLS)
    }
    letters = [
        i for s, items in found.log.items() if s.topic == DEAD_LETTERS for i in items if isinstance(i, DeadLetter)
    ]
    told = {(d.source_topic, d.source_partition, d.source_offset) for d in letters if d.source_topic in found.folded}
    about_log = {t for t in told if t[0] != DEAD_LETTERS}
    assert about_log == poison, f"dropped in silence, or refused for nothing: {list(about_log ^ poison)[:3]}"
    rows = Counter((r["topic"], r["partition"], r["offset"]) for r in found.rows["dead_letters"])
    assert rows.keys() >= about_log, "the rows lack a dead letter"
    assert max(rows.values(), default=1) == 1, "a dead letter stands twice"
    return {"poison records, all dead letters": len(poison)}
