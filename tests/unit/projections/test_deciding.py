"""Each reason and their order, what a person says beside what the recipient's defaults say, and what is recorded."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from projections.policy import Policy, policy_of, preferences_of
from tests.unit.projections.post import HOUR, MINUTE, OUT, T0, Post, lane
from topics.events import Decided

# From the first on: each hides the ones behind it.
ORDER = ("silenced", "opt_out", "no_address", "delay", "quiet_hours", "throttle", "digest", "unread")
PASSED_BY_OVERRIDE = ("opt_out", "quiet_hours")
QUIET = [{"from": "22:00", "to": "07:00"}]  # it is 22:13


@pytest.fixture
def post(tmp_path: Path) -> Iterator[Post]:
    made = Post(f"sqlite:///{tmp_path}/t.db")
    yield made
    made.rows.store.close()


def answer(post: Post, hold: set[str], severity: str = "info") -> str:
    """What is said where all of these reasons hold."""
    wishes: dict[str, Any] = {"channels": {"email": {}}}
    if "opt_out" in hold:
        wishes["channels"]["email"]["enabled"] = False
    if "delay" in hold:
        wishes["channels"]["email"]["after"] = "30m"
    if "quiet_hours" in hold:
        wishes["quiet"] = QUIET
    policy: dict[str, Any] = {"override": ["critical"]}
    if "throttle" in hold:
        policy["throttle"] = {"max": 1, "per": "2h"}
    if "digest" in hold:
        policy["digest"] = "10m"
    post.recipient()
    if "throttle" in hold:
        post.raised("before", {"throttle": {"max": 1, "per": "2h"}})
        post.run()
    if "silenced" in hold:
        post.silence("s", HOUR, alert="cpu")
    post.recipient(
        addresses={"telegram": "@ann"} if "no_address" in hold else {"email": "a@x.test"}, preferences=wishes
    )
    post.raised("n", policy, severity=severity)
    post.fold()
    post.tick()
    post.fold()
    post.land()
    said: Decided = post.events(Decided)[-1]
    assert said.notice_id == "n"
    return said.reason


@pytest.mark.parametrize("hold", list(itertools.combinations(ORDER[:-1], 2)) + [(r,) for r in ORDER])
def test_of_two_reasons_the_first_is_said(post: Post, hold: tuple[str, ...]) -> None:
    assert answer(post, set(hold)) == hold[0]


@pytest.mark.parametrize("reason", ORDER[:-1])
def test_all_reasons_behind_one_are_hidden_by_it(post: Post, reason: str) -> None:
    assert answer(post, set(ORDER[ORDER.index(reason) :])) == reason


@pytest.mark.parametrize("reason", ORDER)
def test_an_override_passes_opt_outs_and_quiet_hours_only(post: Post, reason: str) -> None:
    expected = "unread" if reason in PASSED_BY_OVERRIDE else reason
    assert answer(post, {reason}, severity="critical") == expected


def test_without_an_override_severity_passes_nothing(post: Post) -> None:
    post.recipient(preferences={"channels": {"email": False}})
    post.raised("n", {}, severity="critical")
    post.run()
    assert post.answers == [("n", "forward", "skip", "opt_out")]


def test_own_preferences_take_the_place_of_the_defaults_as_a_whole(post: Post) -> None:
    post.recipient(preferences={"quiet": QUIET, "channels": {"telegram": False}})
    post.prefers({"channels": {"email": {"after": 0}}})
    post.raised("n", {}, (lane("email"), lane("telegram")))
    post.run()
    assert sorted(r.channel for r in post.requests) == ["email", "telegram"]
    assert "defaults" not in post.looked()


def test_defaults_hold_until_then_and_stand_in_the_answer(post: Post) -> None:
    post.recipient(preferences={"quiet": QUIET}, time_zone="Asia/Kolkata")  # 03:43 there
    post.raised("n", {})
    post.run()
    said = post.events(Decided)[0]
    assert (said.reason, said.until) == ("quiet_hours", T0 + 3 * HOUR + 16 * MINUTE + 40_000)
    looked = post.looked()
    assert (looked["defaults"], looked["time_zone"]) == ({"quiet": QUIET}, "Asia/Kolkata")
    assert (looked["asked_at"], looked["preferences"]) == (T0, {})


def test_the_time_zone_stands_there_also_where_it_was_not_quiet(post: Post) -> None:
    post.recipient(time_zone="America/New_York")
    post.prefers({"quiet": QUIET, "time_zone": "Asia/Tokyo"})
    post.raised("n", {})
    post.run()
    assert (post.answers[0][3], post.looked()["time_zone"]) == ("unread", "Asia/Tokyo")


def test_a_raw_address_has_no_preferences_and_no_quiet_hours(post: Post) -> None:
    post.recipient("x@example.test", preferences={"channels": {"email": False}, "quiet": QUIET})
    raw = lane(value="x@example.test")
    raw = type(raw)(raw.step, raw.channel, "address", raw.value, 0)
    post.raised("n", {}, (raw,), user="email:x@example.test", inbox=False)
    post.run()
    assert [m["address"] for m in post.messages] == ["x@example.test"]


@pytest.mark.parametrize(
    ("silence", "silenced"),
    [
        ({"alert": "cpu"}, True),
        ({"alert": "mem"}, False),
        ({"entity_type": "vm", "entity_id": "n"}, True),
        ({"entity_type": "vm", "entity_id": "m"}, False),
        ({"entity_type": "host", "entity_id": "n"}, False),
        ({"user": "ann"}, True),
        ({"user": "bob"}, False),
        ({"alert": "cpu", "user": "bob"}, False),
        ({"alert": "cpu", "entity_type": "vm", "entity_id": "n", "user": "ann"}, True),
    ],
)
def test_a_silence_mutes_what_matches_all_that_it_names(post: Post, silence: dict[str, str], silenced: bool) -> None:
    post.recipient()
    post.silence("s", HOUR, **silence)
    post.raised("n", {})
    post.run()
    assert post.answers[0][2:] == (("skip", "silenced") if silenced else ("deliver", "unread"))
    assert ("silence" in post.looked()) is silenced


def test_a_silence_is_over_at_its_time_or_when_it_is_ended(post: Post) -> None:
    post.recipient()
    post.silence("one", HOUR, alert="cpu")
    post.silence("two", 9 * HOUR, user="ann")
    post.raised("n1", {})
    post.run(HOUR)
    post.raised("n2", {})
    post.run()
    assert post.looked(-1)["silence"]["id"] == "two"
    post.silence_ended("two")
    post.raised("n3", {})
    post.run()
    assert [a[3] for a in post.answers] == ["silenced", "silenced", "unread"]


def test_a_step_after_the_first_is_not_delayed_by_what_its_reader_wants_of_the_first(post: Post) -> None:
    post.recipient(preferences={"channels": {"email": {"after": "1h"}}})
    post.raised("n", {}, (lane(), lane(step="email#2", after_ms=15 * MINUTE)))
    post.run(15 * MINUTE)
    assert [r.step for r in post.requests] == ["email#2"]
    post.run(HOUR)
    assert [r.step for r in post.requests] == ["email#2", "email"]


def test_a_chain_is_stopped_by_the_first_read(post: Post) -> None:
    post.recipient()
    post.raised("n", {}, (lane(after_ms=5 * MINUTE), lane("telegram", after_ms=15 * MINUTE)))
    post.run(10 * MINUTE)
    post.mark("read", "n")
    post.run(HOUR)
    assert [r.channel for r in post.requests] == ["email"]
    assert post.steps()[1] == ("n", "forward", "telegram", "skipped", "read")


@pytest.mark.parametrize("depth", [20, 300, 900, 950, *range(970, 1000), 5_000])
def test_what_a_recipient_says_nested_deeply_ends_nothing(post: Post, depth: int) -> None:
    nested = "[" * depth + "]" * depth
    body = f'{{"addresses":{{"email":"a@x.test","odd":{nested}}},"preferences":{{"quiet":{nested}}},"name":{nested}}}'
    post.recipient()
    people = next(s for s in post.logs if s.topic == "recipients")
    event = post.logs[people][0].event  # type: ignore[union-attr]
    post.say(people, type(event)(**post.common(), recipient_id="ann", version=9, body=body.encode()), "ann")  # type: ignore[call-arg, misc]
    post.raised("n", {})
    post.run()
    assert len(post.answers) == 1


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "7", "{", '"x"', '{"throttle":5,"digest":[],"repeat":{},"override":3,"tell_resolved":1}',
     '{"throttle":{"max":true,"per":"1h"},"digest":-1,"repeat":"soon"}', '{"throttle":{"max":0,"per":"1h"}}',
     '{"throttle":{"max":3,"per":0}}', '{"digest":1e999,"repeat":"999999999d"}', '{"digest":NaN}', "[" * 99_999],
)  # fmt: skip
def test_a_policy_that_is_none_says_nothing(text: str) -> None:
    assert policy_of(text) == Policy()


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", '{"alerts":[],"channels":7,"quiet":{},"time_zone":5}', '{"alerts":{"cpu":true}}',
     '{"channels":{"email":{"enabled":"no","after":"x","digest":[1]}}}', '{"channels":{"email":0}}', "{" * 99_999],
)  # fmt: skip
def test_preferences_that_are_none_say_nothing(text: str) -> None:
    read = preferences_of(text)
    wish = read.wish("cpu", "email")
    assert (wish.enabled, wish.after_ms, wish.digest_ms, read.quiet, read.time_zone) == (True, None, None, (), "")


def test_an_alert_is_asked_before_its_channel_and_either_may_switch_it_off() -> None:
    read = preferences_of(json.dumps({
        "channels": {"email": {"after": "5m", "digest": "1h"}, "sms": False},
        "alerts": {"cpu": {"email": {"after": 0}, "telegram": False}, "mem": {"email": {"digest": 0}}},
    }))  # fmt: skip
    assert (read.wish("cpu", "email").after_ms, read.wish("cpu", "email").digest_ms) == (0, HOUR)
    assert (read.wish("mem", "email").after_ms, read.wish("mem", "email").digest_ms) == (5 * MINUTE, 0)
    assert [read.wish(a, c).enabled for a, c in (("cpu", "telegram"), ("mem", "telegram"), ("cpu", "sms"))] == [
        False, True, False,
    ]  # fmt: skip
    assert read.wish(None, "email").after_ms == 5 * MINUTE


# ------------------------------------------------------------------ repeats
REPEAT = {"repeat": "1h"}


def test_what_stands_unread_is_said_again_each_time_as_a_delivery_of_its_own(post: Post) -> None:
    post.recipient()
    post.raised("n", REPEAT)
    post.run(4 * HOUR)
    assert [at - T0 for at in post.told_at()] == [i * HOUR for i in range(5)]
    assert len({r.delivery_id for r in post.requests}) == 5
    assert [m.get("repeat") for m in post.messages] == [None, True, True, True, True]
    numbers = [d.number for d in post.events(Decided) if d.what == "repeat"]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("end", ["read", "archived", "ended"])
def test_until_it_is_read_archived_or_over_and_all_that_waits_is_recalled(post: Post, end: str) -> None:
    post.recipient()
    post.raised("n", REPEAT)
    post.run(4 * HOUR)
    post.sent(post.requests[0])
    post.fold()
    post.ended("n") if end == "ended" else post.mark(end, "n")
    post.run(9 * HOUR)
    assert len(post.requests) == 5
    assert {r.delivery_id for r in post.recalls} == {r.delivery_id for r in post.requests[1:]}


def test_seen_and_unread_stop_nothing(post: Post) -> None:
    post.recipient()
    post.raised("n", REPEAT)
    post.run()
    post.mark("seen", "n")
    post.mark("unread", "n")
    post.run(HOUR)
    assert len(post.requests) == 2


def test_a_snooze_moves_the_next_one(post: Post) -> None:
    post.recipient()
    post.raised("n", REPEAT)
    post.run(30 * MINUTE)
    post.mark("snoozed", "n", until=T0 + 5 * HOUR)
    post.run(6 * HOUR)
    assert [at - T0 for at in post.told_at()] == [0, 5 * HOUR, 6 * HOUR]


def test_a_silence_is_outlived(post: Post) -> None:
    post.recipient()
    post.silence("s", 90 * MINUTE, alert="cpu")
    post.raised("n", REPEAT)
    post.run(3 * HOUR)
    assert [a[3] for a in post.answers[:3]] == ["silenced", "silenced", "unread"]


@pytest.mark.parametrize(
    ("kind", "key", "times"), [("condition", None, 2), ("event", None, 1), ("direct", None, 1), ("direct", "k", 2)]
)
def test_only_what_can_end_is_repeated(post: Post, kind: str, key: str | None, times: int) -> None:
    post.recipient()
    post.raised("n", REPEAT, kind=kind, key=key)
    post.run(HOUR)
    assert len(post.requests) == times


# ------------------------------------------------------------------ marks
def test_a_command_is_known_for_thirty_days_of_the_log(post: Post) -> None:
    day = 24 * HOUR
    post.recipient()
    post.raised("n", {})
    post.mark("archived", "n", cmd="c")
    post.mark("unarchived", "n")
    post.now += 30 * day - 1
    post.mark("archived", "n", cmd="c")
    post.run()
    archived = "SELECT archived_at FROM notices"
    assert rows(post, archived) == [(None,)]
    post.now += 1
    post.mark("archived", "n", cmd="c")
    post.run()
    assert rows(post, archived) == [(post.now,)]


def test_what_is_snoozed_returns_unread_and_unseen(post: Post) -> None:
    post.recipient()
    post.raised("n", {})
    post.mark("read", "n")
    post.mark("snoozed", "n", until=T0 + HOUR)
    post.run(HOUR - 1)
    assert rows(post, "SELECT unread, unseen FROM tallies") in ([(0, 0)], [])
    post.run(1)
    assert rows(post, "SELECT read_at, seen_at, snoozed_until FROM notices") == [(None, None, None)]
    assert rows(post, "SELECT unread, unseen FROM tallies") == [(1, 1)]


def rows(post: Post, sql: str) -> list[tuple[Any, ...]]:
    with post.rows.store.reading() as tx:
        return [tuple(r) for r in tx.exec_driver_sql(sql)]


def test_the_same_delivery_is_never_asked_for_twice(post: Post) -> None:
    post.recipient()
    post.raised("n", REPEAT, (lane(), lane("telegram")))
    post.run(3 * HOUR)
    on_log = [r.event.delivery_id for r in post.logs[OUT]]  # type: ignore[union-attr]
    assert len(on_log) == len(set(on_log)) == 8
