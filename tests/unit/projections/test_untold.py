"""What a request was to somebody, by the fold that made the notices of it."""

from __future__ import annotations

from typing import Any

from projections.untold import Inquiry, Verdict
from topics.catalogue import NOTICE_REQUESTS
from topics.events import (
    AlertCommitted,
    AlertMoved,
    AlertStarted,
    Effect,
    Event,
    Lane,
    NoticeRequested,
    NoticeResolved,
    Record,
)

HEAD: dict[str, Any] = {"event_id": "e", "producer": "", "occurred_at": 0}


def inbox(*users: str) -> tuple[Lane, ...]:
    return tuple(Lane("", "inbox", "recipient", user, 0) for user in users)


def effect(op: str, *users: str, key: str = "k", notice_id: str = "n1") -> Effect:
    return Effect(op, key, notice_id, 0, "c", None, None, "info", inbox(*users), "", (), None, b'{"notice":{}}')


def started() -> AlertStarted:
    return AlertStarted(**HEAD, alert="cpu", shard=0, shards=1, instance="i")


def committed(number: int, *effects: Effect, run: int = 0, more: bool = False) -> AlertCommitted:
    return AlertCommitted(
        **HEAD, alert="cpu", shard=0, run=run, number=number, more=more, effects=effects, positions=(), now=0,
        state_changed=False, state=b"",
    )  # fmt: skip


def requested(*users: str, key: str | None = None, body: bytes = b"{}") -> NoticeRequested:
    return NoticeRequested(
        **HEAD, subject="billing", key=key, request_key="r", users=users, lanes=(), forward="", severity="info",
        entity_type=None, entity_id=None, body=body,
    )  # fmt: skip


def verdicts(*log: Event, about: int | None = None) -> list[Verdict]:
    """What the records, or only that at offset `about`, were to bob."""
    inquiry = Inquiry("bob", lambda record, _: about in (None, record.offset))
    return [v for i, e in enumerate(log) for v in inquiry.take(Record(NOTICE_REQUESTS, 0, i, 1000 + i, "cpu", e))]


def codes(*log: Event, about: int | None = None) -> list[str]:
    return [v.code for v in verdicts(*log, about=about)]


def test_whoever_is_named_was_told_and_the_others_learn_who_was() -> None:
    (told,) = verdicts(started(), committed(1, effect("raise", "ann", "bob")))
    assert (told.code, told.notice_id) == ("told", "n1")
    (other,) = verdicts(started(), committed(1, effect("raise", "ann")))
    assert (other.code, other.audience, other.notice_id) == ("not_in_audience", ("ann",), None)
    assert other.told == "alert cpu raised k, but to ann only"


def test_an_open_condition_is_not_raised_again() -> None:
    log = (started(), committed(1, effect("raise", "ann")), committed(2, effect("raise", "bob", notice_id="n2")))
    (verdict,) = verdicts(*log, about=2)
    assert verdict.code == "open_already"
    assert "notice-requests[0]@1" in verdict.told
    after_its_end = (*log[:2], committed(2, effect("resolve")), committed(3, effect("raise", "bob")))
    assert codes(*after_its_end, about=3) == ["told"]


def test_an_update_and_an_end_reach_those_who_were_told() -> None:
    first = (started(), committed(1, effect("raise", "bob")))
    assert codes(*first, committed(2, effect("update", "ann")), about=2) == ["told"]
    assert codes(*first, committed(2, effect("resolve")), about=2) == ["told"]
    assert codes(started(), committed(1, effect("update", "bob")), about=1) == ["not_open"]


def test_commits_that_do_not_count_say_why() -> None:
    bobs = effect("raise", "bob")
    assert codes(committed(1, bobs)) == ["no_run"]
    assert codes(started(), AlertMoved(**HEAD, alert="cpu", shards=2), committed(1, bobs)) == ["no_run"]
    assert codes(started(), started(), committed(1, bobs, run=0), about=2) == ["zombie"]
    assert codes(started(), committed(1, bobs), committed(1, bobs), about=2) == ["repeat"]
    (broken,) = verdicts(started(), committed(2, bobs))
    assert broken.code == "refused"
    assert "the chain is broken" in broken.told


def test_a_split_commit_counts_with_its_last_part() -> None:
    parts = (committed(1, effect("raise", "bob", key="a"), more=True), committed(2, effect("raise", "ann", key="b")))
    assert codes(started(), *parts, about=1) == ["told"]
    assert codes(started(), *parts) == ["told", "not_in_audience"]
    assert codes(started(), parts[0], started(), about=1) == ["void"]


def test_a_direct_request_is_judged_by_its_audience_its_key_and_its_body() -> None:
    assert codes(requested("ann", "bob")) == ["told"]
    assert codes(requested("ann")) == ["not_in_audience"]
    assert codes(requested("ann", key="k"), requested("bob", key="k"), about=1) == ["open_already"]
    resolved = NoticeResolved(**HEAD, subject="billing", key="k")
    assert codes(requested("ann", key="k"), resolved, requested("bob", key="k"), about=2) == ["told"]
    assert codes(resolved) == ["not_open"]
    assert codes(requested("bob", body=b"none")) == ["refused"]


def test_a_large_audience_is_named_by_its_first_and_its_number() -> None:
    (verdict,) = verdicts(requested(*(f"u{i:03d}" for i in range(100))))
    assert verdict.told.endswith("u009 and 90 more only")
    assert len(verdict.audience) == 100
