"""What no program of ours would write about forwards ends no fold, and changes nothing that is not its own."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from projections.digests import digest_id
from projections.notice import Step
from projections.sql.schema import notices
from tests.unit.projections.post import BOX, HOUR, MINUTE, T0, Post, lane
from topics.events import Decided, DeliveryRequested, Due, NoticeEnded, NoticeUpdated, PreferencesChanged

TEN = {"digest": "10m"}
HUGE = (1 << 63) - 1


@pytest.fixture
def post(database: Callable[[str], str]) -> Iterator[Post]:
    made = Post(database("t"))
    made.recipient()
    yield made
    made.rows.store.close()


def digest_of(user: str, config: str = "c1", value: str = "") -> str:
    return digest_id(user, Step("forward", "email", "email", "recipient", value or user, 0), config)


def decided(post: Post, notice_id: str = "n1", body: Any = None, **more: Any) -> Decided:
    given: dict[str, Any] = {
        "user": "ann", "what": "forward", "step": "email", "number": 0, "answer": "postpone", "reason": "throttle",
        "until": T0 + MINUTE,
    } | more  # fmt: skip
    raw = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    return Decided(**post.common(), notice_id=notice_id, body=raw, **given)


def asked(post: Post, notice_id: str = "n1", **more: Any) -> None:
    """Its forward is asked, and unanswered."""
    post.raised(notice_id, {}, **more)
    post.fold()
    post.tick()
    assert len(post.logs[BOX]) == post.rows.at[BOX] + 1


def step(post: Post, notice_id: str = "n1") -> tuple[str, int, int, str]:
    for name, state, number, due_at, held_in in post.steps("notice_id", "state", "number", "due_at", "held_in"):
        if name == notice_id:
            return state, number, due_at, held_in
    raise LookupError(notice_id)


@pytest.mark.parametrize(
    "named",
    ["other", "", 7, None, ["x"], "x" * 9999, digest_of("bob"), digest_of("ann", "c2"), digest_of("ann", "", "x")],
)
def test_a_decision_that_names_what_is_none_of_its_receivers_digests_only_postpones(post: Post, named: Any) -> None:
    post.raised("other", {}, (), body=b'{"named":5}')
    asked(post)
    post.say(BOX, decided(post, body={"digest": named}))
    post.fold()
    assert step(post) == ("waiting", 1, T0 + MINUTE, "")
    assert sorted(post.rows.all(select(notices.c.notice_id))) == [("n1",), ("other",)]


@pytest.mark.parametrize("until", [-1, HUGE, 1 << 53, -HUGE, None])
def test_a_postponement_to_no_time_is_none(post: Post, until: int | None) -> None:
    asked(post)
    post.say(BOX, decided(post, until=until))
    post.run()
    assert post.answers[-1] == ("n1", "forward", "deliver", "unread")
    assert step(post)[0] == "delivered"


@pytest.mark.parametrize("answer", ["", "maybe", "DELIVER", "read"])
def test_an_answer_that_nobody_knows_is_none(post: Post, answer: str) -> None:
    asked(post)
    post.say(BOX, decided(post, answer=answer, body={"deadline_at": 5}))
    post.run()
    assert step(post)[0] == "delivered"


def test_an_answer_to_another_number_waits_for_its_question_and_an_old_one_is_passed_over(post: Post) -> None:
    post.raised("n1", {})
    post.say(BOX, decided(post, number=7, answer="skip", reason="later"))
    post.say(BOX, decided(post, number=-3, answer="skip", reason="older"))
    post.say(BOX, decided(post, number=1 << 40, answer="skip", reason="never"))
    post.run()
    assert step(post)[:2] == ("delivered", 0)


def test_an_early_answer_is_taken_when_it_is_asked_also_into_a_digest_that_is_there(post: Post) -> None:
    post.raised("n0", TEN)
    post.run()
    post.raised("n1", TEN, (lane(after_ms=MINUTE),))
    post.say(BOX, decided(post, reason="digest", body={"digest": digest_of("ann")}))
    post.fold()
    post.run(HOUR)
    assert [m["count"] for m in post.messages] == [2]


def test_a_notice_under_the_id_of_a_digest_is_no_digest(post: Post) -> None:
    post.raised(digest_of("ann"), {}, (), kind="digest", body=b'{"named":[1,{"id":2}]}')  # refused
    post.raised(digest_of("ann", "c2"), {}, (), kind="condition")
    post.raised("n1", TEN)
    post.raised("n2", TEN, config_id="c2")
    post.run()
    assert (step(post)[0], step(post, "n2")[0]) == ("collected", "waiting")
    post.prefers({"channels": {"email": {"digest": 0}}})
    post.run(HOUR)
    assert (step(post)[0], step(post, "n2")[0]) == ("delivered", "delivered")


@pytest.mark.parametrize("named", [5, None, [1], [{}], [{"id": 5}], [{"number": "x", "id": "n1"}], {"a": 1}])
def test_nobody_updates_or_ends_a_digest(post: Post, named: Any) -> None:
    post.raised("n1", TEN)
    post.run()
    body = json.dumps({"named": named}).encode()
    about: dict[str, Any] = {"notice_id": digest_of("ann"), "user": "ann"}
    update = NoticeUpdated(
        **post.common(), **about, cause_offset=HUGE, cause_index=9, severity="critical", push=True, body=body
    )
    post.say(BOX, update)
    post.say(BOX, NoticeEnded(**post.common(), **about, body=b""))
    post.mark("archived", digest_of("ann"))
    post.raised("n2", TEN)
    post.run(HOUR)
    assert [m["notices"] for m in post.messages] == [["n1", "n2"]]
    assert post.messages[0]["severity"] == "info"


def test_a_decision_on_a_digest_that_holds_nothing_sends_nothing(post: Post) -> None:
    post.raised("n1", TEN)
    post.run(MINUTE)
    post.mark("read", "n1")
    post.run(9 * MINUTE - 1)
    post.now += 1
    post.fold()
    post.tick()
    answer = {"deadline_at": T0 + HOUR, "address": "a@x.test"}
    post.say(
        BOX, decided(post, digest_of("ann"), answer, what="digest", number=1, answer="deliver", reason="", until=None)
    )
    post.run(HOUR)
    assert post.events(DeliveryRequested) == []


@pytest.mark.parametrize("what", ["digest", "resolved", "repeat", "snooze", "", "forward\0", "x" * 999])
def test_a_due_or_a_decision_about_what_does_not_wait_changes_nothing(post: Post, what: str) -> None:
    post.raised("n1", {}, (lane(after_ms=HOUR),))
    post.run()
    before = post.steps("what", "state", "number", "due_at")
    for number in (-1, 0, 1, HUGE):
        post.say(
            BOX, Due(**post.common(), user="ann", notice_id="n1", what=what, step="email", number=number, due_at=0)
        )
        post.say(BOX, decided(post, what=what, number=number, answer="deliver", body={"deadline_at": 5}))
    post.run()
    assert post.steps("what", "state", "number", "due_at") == before
    assert post.requests == []


@pytest.mark.parametrize(
    "forward",
    ['{"digest":', "[]", "7", '{"digest":"10m","throttle":{"max":1e400}}', '{"repeat":"0s"}', '{"a":' + "[" * 50_000,
     '{"throttle":{"max":1,"per":"90d"},"repeat":"90d","digest":"90d","override":[{}],"tell_resolved":"yes"}',
     "\ufeff{}"],
)  # fmt: skip
def test_a_notice_with_a_forward_that_is_none_is_forwarded_or_collected(post: Post, forward: str) -> None:
    post.raised("n1", forward)
    post.ended("n1")
    post.raised("n2", forward)
    post.run(HOUR)
    assert step(post, "n2")[0] in ("delivered", "collected")


@pytest.mark.parametrize(
    "body",
    [b"null", b"[]", b'"x"', b"\xff", b"", b'{"quiet":[{"from":"22:00","to":"07:00"}],"time_zone":"../../etc/passwd"}',
     b'{"alerts":{"cpu":[]},"channels":"x","quiet":[null],"time_zone":{}}', b'{"quiet":' + b"[" * 50_000],
)  # fmt: skip
def test_preferences_that_are_none_end_nothing(post: Post, body: bytes) -> None:
    post.prefers({})
    (last,) = post.events(PreferencesChanged)
    post.say(BOX, replace(last, event_id="x", cmd="x", body=body))
    post.raised("n1", {})
    post.run(9 * HOUR)
    assert step(post)[0] == "delivered"


def test_what_strangers_said_gives_the_same_rows_again(post: Post, database: Callable[[str], str]) -> None:
    post.raised("n0", TEN)
    post.raised("n1", TEN, (lane(after_ms=MINUTE),))
    for number in (0, 1, 2, 9):
        post.say(BOX, decided(post, number=number, reason="digest", body={"digest": digest_of("ann")}))
    post.say(BOX, decided(post, digest_of("ann"), {}, what="digest", number=1, answer="skip", reason="because"))
    post.run(3 * HOUR)
    before = post.rows.dump()
    for name, cuts in (("one", 1), ("all", 10_000)):
        again = post.again(database(name), cuts)
        assert again.dump() == before
        again.store.close()
