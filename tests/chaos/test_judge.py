"""The judge finds what it looks for: with the log of a small run it is content, with each of these faults it is not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.chaos.evidence import Evidence
from tests.chaos.fold import Partition
from tests.chaos.judge import judge
from tests.chaos.recording import load
from topics.catalogue import DEAD_LETTERS, DELIVERIES, NOTICES
from topics.events import Decided, DeliveryRequested, Due, Event, NoticeEnded, NoticeMarked, NoticeRaised, Record
from topics.fetch import Item, Spot

Fault = Callable[[Evidence], None]


@pytest.fixture
def found() -> Evidence:
    return load()


def first(found: Evidence, topic: str, is_it: Callable[[Any], bool]) -> tuple[list[Item], int, Any]:
    """Where the first such record stands: its partition, its index there, the event."""
    for spot, items in found.log.items():
        for index, item in enumerate(items):
            if spot.topic == topic and isinstance(item, Record) and is_it(item.event):
                return items, index, item.event
    raise AssertionError(f"the recording holds no such record on {topic}")


def dropped(topic: str, kind: type[Event], is_it: Callable[[Any], bool] = lambda _: True) -> Fault:
    def fault(found: Evidence) -> None:
        items, _, meant = first(found, topic, lambda e: isinstance(e, kind) and is_it(e))
        items[:] = [i for i in items if getattr(getattr(i, "event", None), "event_id", "") != meant.event_id]

    return fault


def changed(topic: str, kind: type[Event], is_it: Callable[[Any], bool], **other: Any) -> Fault:
    def fault(found: Evidence) -> None:
        items, _, meant = first(found, topic, lambda e: isinstance(e, kind) and is_it(e))
        for index, item in enumerate(items):
            if isinstance(item, Record) and item.event and item.event.event_id == meant.event_id:
                items[index] = dataclasses.replace(item, event=dataclasses.replace(meant, **other))

    return fault


def doubled(topic: str, kind: type[Event], is_it: Callable[[Any], bool], **other: Any) -> Fault:
    def fault(found: Evidence) -> None:
        items, index, meant = first(found, topic, lambda e: isinstance(e, kind) and is_it(e))
        item: Any = items[index]
        items.append(dataclasses.replace(item, event=dataclasses.replace(meant, **other)))

    return fault


def row(table: str, column: str, change: Callable[[Any], Any], is_it: Callable[[Any], bool] = lambda _: True) -> Fault:
    def fault(found: Evidence) -> None:
        meant = next(r for r in found.rows[table] if is_it(r))
        meant[column] = change(meant[column])

    return fault


def row_gone(table: str) -> Fault:
    return lambda found: found.rows[table].remove(found.rows[table][-1])


def read_moved_before_the_due(found: Evidence) -> None:
    """The Due came first, so it was forwarded; now the log says that it was read before."""
    for items in (i for s, i in found.log.items() if s.topic == NOTICES):
        raced = [k for k, (who, _) in Partition(items).races.items() if who == "due"]
        for index, item in enumerate(items):
            e = item.event if isinstance(item, Record) else None
            if isinstance(e, NoticeMarked) and e.mark == "read" and len(e.ids) == 1 and (e.user, e.ids[0]) in raced:
                due = next(
                    i for i, r in enumerate(items) if isinstance(r, Record) and _is_due(r.event, e.user, e.ids[0])
                )
                items.insert(due, items.pop(index))
                return
    raise AssertionError("the recording holds no read that came after the Due")


def _is_due(event: Any, user: str, notice: str) -> bool:
    return isinstance(event, Due) and (event.user, event.notice_id, event.producer[:6]) == (user, notice, "worker")


def never_answered(found: Evidence) -> None:
    """And the row knows it: it still stands asked."""
    items, index, e = first(found, NOTICES, lambda e: isinstance(e, Decided) and e.reason == "silenced")
    del items[index]
    for r in found.rows["steps"]:
        if (r["user_id"], r["notice_id"], r["what"], r["step"]) == (e.user, e.notice_id, e.what, e.step):
            r["state"] = "asked"


def mail_doubled(found: Evidence) -> None:
    message = next(iter(found.taken))
    found.taken[message] *= 2


def mail_lost(found: Evidence) -> None:
    del found.taken[next(iter(found.taken))]


def mail_to_another(found: Evidence) -> None:
    found.sent_to[next(iter(found.taken))] = "eve@example.test"


def letter_dropped(found: Evidence) -> None:
    del found.log[Spot(DEAD_LETTERS, 0)][-1]


def digest_short(found: Evidence) -> None:
    items, index, e = first(found, DELIVERIES, lambda e: isinstance(e, DeliveryRequested) and b'"count"' in e.body)
    body = json.loads(e.body)
    item: Any = items[index]
    short = json.dumps(body | {"count": body["count"] - 1}).encode()
    items[index] = dataclasses.replace(item, event=dataclasses.replace(e, body=short))


def test_the_judge_is_content_with_what_is_right(found: Evidence) -> None:
    seen = judge(found)
    for what in ("notices", "deliveries", "digests", "mails", "deliver: resolved", "postpone: throttle"):
        assert seen[what] > 0, what


FAULTS: dict[str, tuple[Fault, str]] = {
    "a NoticeRaised is lost": (dropped(NOTICES, NoticeRaised), "lost"),
    "a NoticeEnded is lost": (dropped(NOTICES, NoticeEnded), "over, and not said so"),
    "a mark is lost": (dropped(NOTICES, NoticeMarked), "mark that was accepted is lost"),
    "a notice nobody asked for": (doubled(NOTICES, NoticeRaised, lambda _: True, notice_id="x"), "nobody asked for"),
    "raised by two events": (doubled(NOTICES, NoticeRaised, lambda _: True, event_id="x"), "raised by two events"),
    "a notice's row is lost": (row_gone("notices"), "notices: 1 rows are not the log"),
    "a read was applied to nothing": (row("notices", "read_at", lambda at: None if at else 1), "rows are not the log"),
    "a step was counted twice": (row("steps", "number", lambda n: n + 1), "steps: 1 rows are not the log"),
    "a tally is off by one": (row("tallies", "unread", lambda n: n + 1), "tallies"),
    "a row of the outbox stays": (lambda f: f.rows["outbox"].append({}), "has not left"),
    "a question without an answer": (never_answered, "asked, and never answered"),
    "an answer without its Due": (dropped(NOTICES, Due, lambda e: e.producer[:6] == "worker"), "not the log"),
    "another answer": (
        changed(NOTICES, Decided, lambda e: e.reason == "silenced", reason="opt_out"),
        "skip opt_out",
    ),
    "delivered in spite of a silence": (
        changed(NOTICES, Decided, lambda e: e.reason == "silenced", answer="deliver", reason="unread"),
        "not the log",
    ),
    "another time": (changed(NOTICES, Decided, lambda e: e.reason == "digest" and e.until, until=5), "not the log"),
    "a second decision": (
        doubled(NOTICES, Decided, lambda e: e.reason == "unread" and e.user[0] == "u", answer="skip", reason="opt_out"),
        "two decisions on one question",
    ),
    "a read that came first": (read_moved_before_the_due, "not the log"),
    "not forwarded": (dropped(DELIVERIES, DeliveryRequested), "not forwarded that should have been"),
    "forwarded twice": (
        doubled(DELIVERIES, DeliveryRequested, lambda _: True, delivery_id="x", message_id="<x>"),
        "carried out twice",
    ),
    "a digest that lost a notice": (digest_short, "a digest has lost something"),
    "a delivery's row is lost": (row_gone("delivery_requests"), "rows of deliveries are not the log"),
    "a mail sent twice": (mail_doubled, "no sender was killed or frozen"),
    "a mail that is said to be sent": (mail_lost, "never taken"),
    "a mail to somebody else": (mail_to_another, "a mail to somebody else"),
    "a record dropped in silence": (letter_dropped, "dropped in silence"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_the_judge_finds(found: Evidence, name: str) -> None:
    fault, why = FAULTS[name]
    fault(found)
    with pytest.raises(AssertionError, match=why):
        judge(found)
