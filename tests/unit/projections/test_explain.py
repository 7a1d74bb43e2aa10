"""Stories from records alone: what counts, what is left out, what nobody can read any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from projections.explain import Story, story
from projections.narration import private
from projections.outcomes import outcomes
from projections.story_json import story_members
from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES, entity_topic
from topics.events import (
    AlertCommitted,
    Cause,
    Decided,
    DeliveryCancelled,
    DeliveryRequested,
    DeliverySent,
    Due,
    Effect,
    Event,
    Lane,
    NoticeMarked,
    NoticeRaised,
    NoticeRequested,
    NoticeUpdated,
    Record,
)
from topics.evidence import Evidence
from topics.json_text import dumps

ME, NOTICE, DIGEST = "ann", "n1", "d1"
MAIL = Lane("email", "email", "recipient", ME, 60_000)


class Told:
    """The log of one user's notice, written by hand: one record a millisecond."""

    def __init__(self) -> None:
        self.evidence, self.now = Evidence(), 1_000

    def say(self, topic: str, event: Event, wait: int = 1) -> Record:
        self.now += wait
        there = {NOTICES: self.evidence.notices, DELIVERIES: self.evidence.deliveries}.get(topic, [])
        record = Record(topic, 0, len(there) + 10 * len(self.evidence.causes), self.now, ME, event)
        there.append(record)
        if topic not in (NOTICES, DELIVERIES):
            self.evidence.causes[topic, 0, record.offset] = record
        return record

    def due(self, number: int = 0, what: str = "forward", of: str = NOTICE, wait: int = 60_000) -> Record:
        event = Due(**head(), user=ME, notice_id=of, what=what, step="email", number=number, due_at=self.now + wait)
        return self.say(NOTICES, event, wait + 1)

    def decided(self, due: Record, answer: str, reason: str, **body: Any) -> Record:
        e = due.event
        assert isinstance(e, Due)
        until = body.pop("until", None)
        said = {"deadline_at": self.now, "address": "a@example.test", "looked_at": {"preferences": {}}} | body
        event = Decided(
            **head(f"decided {e.notice_id} {e.number}") | {"caused_by": (due.cause,)}, user=ME, notice_id=e.notice_id,
            what=e.what, step=e.step, number=e.number, answer=answer, reason=reason, until=until,
            body=dumps(said).encode(),
        )  # fmt: skip
        return self.say(NOTICES, event)

    def delivery(self, decided: Record) -> None:
        e = decided.event
        assert isinstance(e, Decided)
        common: dict[str, Any] = {"delivery_id": f"x {e.notice_id} {e.number}", "user": ME, "notice_id": e.notice_id}
        asked = DeliveryRequested(
            **head() | {"caused_by": (decided.cause,)}, **common, step="email", channel="email", message_id="<m>",
            deadline_at=1, body=b'{"address":"a@example.test"}',
        )  # fmt: skip
        self.say(DELIVERIES, asked)
        self.say(DELIVERIES, DeliverySent(**head(), **common, attempt=1, body=b'{"answer":"250 Ok"}'))

    def mark(self, how: str, **more: Any) -> None:
        given = {"cmd": f"c{self.now}", "ids": (NOTICE,), "up_to": None, "until": None} | more
        self.say(NOTICES, NoticeMarked(**head(), user=ME, mark=how, **given))

    @property
    def story(self) -> Story:
        found = story(ME, NOTICE, self.evidence)
        assert found is not None
        return found

    @property
    def lines(self) -> list[str]:
        return [m.told for m in self.story.moments]


_ids = iter(range(10**9))


def head(event_id: str = "") -> dict[str, Any]:
    return {"event_id": event_id or f"e{next(_ids)}", "producer": "test", "occurred_at": 0, "caused_by": ()}


def raised(*lanes: Lane, **more: Any) -> NoticeRaised:
    given = head() | {
        "notice_id": NOTICE, "user": ME, "inbox": True, "kind": "event", "alert": "cpu", "config_id": "c", "key": "k",
        "entity_type": "vm", "entity_id": "1", "severity": "warning", "lanes": lanes, "forward": "",
        "body": b'{"title":"busy"}',
    }  # fmt: skip
    return NoticeRaised(**given | more)


def test_a_read_ends_what_waits_and_the_story_says_so() -> None:
    told = Told()
    told.say(NOTICES, raised(MAIL))
    told.mark("read")
    told.mark("read", cmd="again")
    told.mark("read", ids=("another",))
    assert told.lines == [
        "told ann: in the inbox, by email if unread after 1 min",
        "ann marked it as read; no longer to be sent by email",
    ]
    assert outcomes(told.story) == {"email": "not sent: it was read"}
    assert told.story.waits == ()


def test_a_mark_of_all_belongs_to_the_story_of_what_was_raised_before_it() -> None:
    told = Told()
    told.say(NOTICES, raised())
    told.mark("read", ids=(), up_to=0)
    told.mark("read", ids=(), up_to=5)
    assert told.lines == ["told ann: in the inbox", "ann marked it as read with all before it"]


def test_a_due_that_nobody_answered_and_that_did_not_count_is_left_out() -> None:
    told = Told()
    told.say(NOTICES, raised(MAIL))
    told.due(wait=1)  # before its time
    told.due(number=7)  # of another number
    counted = told.due()
    told.decided(counted, "postpone", "quiet_hours", until=3_600_000)
    told.decided(counted, "deliver", "unread")  # a second answer to one question is none
    assert told.lines == [
        "told ann: in the inbox, by email if unread after 1 min",
        "email: due",
        "email: not before 1970-01-01 01:00:00 UTC (quiet hours)",
    ]
    assert told.story.waits == ({"what": "forward", "step": "email", "state": "waiting", "due_at": 3_600_000},)


def test_an_update_that_came_too_late_is_left_out() -> None:
    told = Told()
    told.say(NOTICES, raised())
    for offset in (9, 8):
        common: dict[str, Any] = {
            "notice_id": NOTICE,
            "user": ME,
            "cause_offset": offset,
            "cause_index": 0,
            "push": True,
        }
        told.say(NOTICES, NoticeUpdated(**head(), **common, severity="error", body=b'{"title":"busier"}'))
    assert told.lines == ["told ann: in the inbox", "it was updated, severity error"]
    assert (told.story.title, told.story.severity) == ("busier", "error")


def test_a_digest_that_carried_the_notice_is_a_part_of_its_story_and_others_are_not() -> None:
    told = Told()
    told.say(NOTICES, raised(MAIL))
    before = told.due(3, "digest", DIGEST, wait=1)
    told.decided(before, "deliver", "unread")
    told.decided(told.due(), "postpone", "throttle", digest=DIGEST, until=900_000)
    carried = told.decided(told.due(4, "digest", DIGEST, wait=1), "deliver", "unread")
    told.delivery(carried)
    told.delivery(told.decided(told.due(5, "digest", DIGEST, wait=1), "deliver", "unread"))
    assert told.lines[2:] == [
        "email: not before 1970-01-01 00:15:00 UTC (as many as allowed were sent already)",
        "the digest by email: due",
        "the digest by email: to be sent (it was unread)",
        "a message by email to a@example.test was asked for",
        "sent with attempt 1: 250 Ok",
    ]
    assert outcomes(told.story)["email"].startswith("sent ")


def test_a_digest_does_not_carry_what_was_read_before_its_time() -> None:
    told = Told()
    told.say(NOTICES, raised(MAIL))
    told.decided(told.due(), "postpone", "digest", digest=DIGEST, until=900_000)
    told.mark("read")
    told.delivery(told.decided(told.due(0, "digest", DIGEST, wait=1), "deliver", "unread"))
    assert told.lines[-1].startswith("ann marked it as read")


def test_a_delivery_is_followed_to_its_end_and_a_repeat_of_a_record_is_left_out() -> None:
    told = Told()
    told.say(NOTICES, raised(MAIL))
    told.delivery(told.decided(told.due(), "deliver", "unread"))
    told.evidence.deliveries.append(replace(told.evidence.deliveries[-1], offset=99))
    cancelled = DeliveryCancelled(**head(), delivery_id="another", user=ME, notice_id=NOTICE, reason="read")
    told.say(DELIVERIES, cancelled)
    assert told.lines[-2:] == ["a message by email to a@example.test was asked for", "sent with attempt 1: 250 Ok"]


def test_what_its_key_is_gone_for_is_erased_and_all_else_is_told() -> None:
    told = Told()
    request = NoticeRequested(
        **head(), subject="billing", key=None, request_key="r", users=(ME, "bob"), lanes=(), forward="",
        severity="info", entity_type=None, entity_id=None, body_key="gone", body=b"\x01\x02",
    )  # fmt: skip
    cause = told.say(NOTICE_REQUESTS, request).cause
    told.say(NOTICES, raised(MAIL, body_key="gone", body=b'{"x":1}', caused_by=(cause,)))
    due = told.due()
    said = told.decided(due, "skip", "opt_out")
    assert isinstance(said.event, Decided)
    told.evidence.notices[-1] = replace(said, event=replace(said.event, body_key="gone", body=b"\x01"))
    members = story_members(told.story)
    assert members["title"] == "erased"
    assert [m["told"] for m in members["moments"]] == [
        "billing asked for a notice to 2 receivers",
        "told ann: in the inbox, by email if unread after 1 min",
        "email: due",
        "email: not to be sent (its receiver does not want it there)",
    ]
    assert members["moments"][1]["details"]["said"] == "erased"
    assert members["moments"][3]["details"]["looked_at"] == "erased"


def test_a_private_moment_names_no_other_receiver_and_shows_only_what_may_be_read() -> None:
    told = Told()
    config = {"name": "cpu", "metric": 90, "channel": {"inbox": [ME, "bob"]}, "owner": "x"}
    body = f'{{"notice":{{"title":"busy"}},"config":{dumps(config)},"entity":{{"cpu":97}}}}'.encode()
    lanes = (Lane("", "inbox", "recipient", ME, 0), Lane("", "inbox", "recipient", "bob", 0))
    causes = (Cause("gone", entity_topic("vm"), 0, 5),)
    effect = Effect("raise", "k", NOTICE, 0, "c", "vm", "1", "warning", lanes, "", causes, None, body)
    commit = AlertCommitted(
        **head(), alert="cpu", shard=0, run=1, number=1, more=False, effects=(effect,), positions=(), now=0,
        state_changed=False, state=b"",
    )  # fmt: skip
    told.say(NOTICES, raised(caused_by=(told.say(NOTICE_REQUESTS, commit).cause,)))
    said = told.story.moments[0]
    assert [r["user"] for r in said.details["receivers"]] == [ME, "bob"]
    assert said.details["entity"]["value"] == {"cpu": 97}  # compaction took the change itself
    hidden = private(said, ME, lambda kind, value: False).details
    assert "bob" not in dumps(hidden)
    assert hidden["others"] == 1
    assert hidden["config"]["value"] == {"name": "cpu", "metric": 90}
    assert "value" not in hidden["entity"]
    shown = private(said, ME, lambda kind, value: (kind, value) == ("vm", {"cpu": 97})).details
    assert shown["entity"]["value"] == {"cpu": 97}


def test_there_is_no_story_of_what_nobody_has() -> None:
    assert story(ME, NOTICE, Evidence()) is None
