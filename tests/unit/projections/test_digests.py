"""Digests: collected, gathered at their Due, delivered as one; what is read before leaves, after it stays."""

import json
import random
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from projections.digests import gathered_in
from projections.sql.notices import NoticesFold
from projections.sql.schema import notices
from tests.unit.projections.post import BOX, HOUR, MINUTE, T0, Post, lane
from topics.events import Decided, Record

TEN = {"digest": "10m"}
NIGHT = {"quiet": [{"from": "22:00", "to": "07:00"}]}  # the tests begin at 22:13


@pytest.fixture
def post(database: Callable[[str], str]) -> Iterator[Post]:
    made = Post(database("t"))
    made.recipient()
    yield made
    made.rows.store.close()


def carried(post: Post) -> list[list[str]]:
    return [m.get("notices", [m["notice_id"]]) for m in post.messages]


def at_its_due(post: Post, ms: int = 10 * MINUTE) -> None:
    """The Due of what waits stands on the log, unfolded."""
    post.run(ms - 1)
    post.now += 1
    post.fold()
    post.tick()


def test_what_is_collected_leaves_as_one_message(post: Post) -> None:
    for i in range(3):
        post.raised(f"n{i}", TEN)
        post.run(MINUTE)
    assert {s for *_, s, _ in post.steps()} == {"collected"}
    post.run(10 * MINUTE)
    (message,) = post.messages
    assert message["count"] == 3
    assert message["title"] == "3 notices"
    assert [line.strip("- ") for line in message["text"].split("\n") if line] == [
        f"{what} n{i}" for i in range(3) for what in ("title", "text")
    ]
    assert {s for *_, s, _ in post.steps()} == {"delivered"}
    assert post.told_at() == [T0 + 10 * MINUTE]


def test_while_it_is_decided_whatever_joins_it_loads_all_that_it_holds(post: Post) -> None:
    for i in range(60):  # more than its message names
        post.raised(f"n{i}", TEN)
    at_its_due(post)
    post.fold()
    joining = next(r for r in post.logs[BOX] if isinstance(r, Record) and isinstance(r.event, Decided))
    with post.rows.store.reading() as tx:
        box = NoticesFold().load(tx, BOX, [joining]).box
    (digest,) = [n for n in box.notices.values() if n.kind == "digest"]
    assert len(gathered_in(box, digest)) == 60


def test_what_is_read_before_its_due_leaves_it(post: Post) -> None:
    post.raised("n1", TEN)
    post.raised("n2", TEN)
    post.run(MINUTE)
    post.mark("read", "n1")
    post.run(HOUR)
    assert carried(post) == [["n2"]]
    assert post.titles == ["title n2"]


def test_what_is_read_after_its_due_does_not(post: Post) -> None:
    post.raised("n1", TEN)
    post.raised("n2", TEN)
    at_its_due(post)
    post.mark("read", "n1")
    post.run(MINUTE)
    assert carried(post) == [["n1", "n2"]]
    assert not post.recalls


def test_where_everything_was_read_nothing_is_sent(post: Post) -> None:
    for i in range(3):
        post.raised(f"n{i}", TEN)
    post.run(MINUTE)
    post.mark("read", "n0", "n1")
    post.ended("n2")
    post.run(HOUR)
    assert post.messages == []
    assert post.answers[-1] == ("digest", "digest", "skip", "empty")
    post.raised("n4", TEN)
    post.run(HOUR)
    assert carried(post) == [["n4"]]


def test_what_is_snoozed_leaves_it_and_comes_back_later(post: Post) -> None:
    post.raised("n1", TEN)
    post.raised("n2", TEN)
    post.run(MINUTE)
    post.mark("snoozed", "n1", until=post.now + HOUR)
    post.run(HOUR)
    assert carried(post) == [["n2"]]
    post.run(HOUR)
    assert carried(post) == [["n2"], ["n1"]]
    assert len({r.delivery_id for r in post.requests}) == 2


def test_what_left_a_digest_has_a_delivery_of_its_own(post: Post) -> None:
    """Snoozed out of a digest at its number 1, delivered alone under number 2; the digest's next number is 2, too."""
    post.raised("n1", TEN)
    post.run()
    post.mark("snoozed", "n1", until=post.now + 2 * HOUR)
    post.run(HOUR)
    post.prefers({"channels": {"email": {"digest": 0}}})
    post.run(2 * HOUR)
    post.prefers({})
    post.raised("n2", TEN)
    post.run(HOUR)
    assert carried(post) == [["n1"], ["n2"]]
    assert len({r.delivery_id for r in post.requests}) == 2


def test_a_snooze_while_it_is_decided_moves_what_is_postponed(post: Post) -> None:
    post.raised("n1", TEN)
    post.raised("n2", TEN)
    post.run()
    post.prefers(NIGHT)
    at_its_due(post)
    post.mark("snoozed", "n1", until=post.now + 24 * HOUR)
    post.run(12 * HOUR)
    assert carried(post) == [["n2"]]
    post.run(24 * HOUR)
    assert [a[3] for a in post.answers if a[0] == "n1"][1] == "quiet_hours"
    post.run(10 * HOUR)
    assert carried(post) == [["n2"], ["n1"]]


def test_a_snooze_that_ends_after_the_digest_is_waited_for(post: Post) -> None:
    post.raised("n1", TEN)
    post.run(9 * MINUTE)
    post.raised("n2", TEN)
    post.fold()
    post.tick()
    post.mark("snoozed", "n2", until=post.now + 5 * MINUTE)  # while it is asked; its digest is due in a minute
    post.run(4 * MINUTE)
    assert carried(post) == [["n1"]]
    post.run(HOUR)
    assert carried(post) == [["n1"], ["n2"]]


def test_what_joins_while_it_is_decided_waits_for_the_next(post: Post) -> None:
    post.raised("n1", TEN)
    at_its_due(post)
    post.fold()
    post.raised("n2", TEN, severity="critical")
    post.fold()
    post.tick()
    post.fold()
    post.run(MINUTE)
    assert carried(post) == [["n1"]]
    assert post.messages[0]["severity"] == "info"
    post.run(HOUR)
    assert carried(post) == [["n1"], ["n2"]]


def test_quiet_hours_hold_a_digest_with_all_that_it_holds(post: Post) -> None:
    post.raised("n1", TEN)
    post.raised("n2", TEN)
    post.run()
    post.prefers(NIGHT)
    post.run(HOUR)
    post.mark("read", "n2")
    post.run(7 * HOUR)
    assert post.messages == []
    assert post.answers[-1] == ("digest", "digest", "postpone", "quiet_hours")
    post.run(2 * HOUR)
    assert carried(post) == [["n1"]]


def test_a_severity_that_has_left_does_not_override(post: Post) -> None:
    policy = {"digest": "10m", "override": ["critical"]}
    post.raised("n1", policy, severity="critical")
    post.raised("n2", policy)
    post.run(MINUTE)
    post.prefers(NIGHT)
    post.mark("read", "n1")
    post.run(HOUR)
    assert post.messages == []
    post.raised("n3", policy, severity="critical")
    post.run(HOUR)
    assert len(post.messages) == 1
    assert post.messages[0]["severity"] == "critical"


def test_a_person_has_one_digest_of_everything_and_a_config_its_own(post: Post) -> None:
    post.prefers({"alerts": {"cpu": {"email": {"digest": "1h"}}, "mem": {"email": {"digest": "1h"}}}})
    post.raised("a", {})
    post.raised("b", TEN, config_id="c2", alert="mem")
    post.raised("c", TEN, config_id="c3", alert="disk")
    post.raised("d", TEN, config_id="c4", alert="net")
    post.run(2 * HOUR)
    assert sorted(carried(post)) == [["a", "b"], ["c"], ["d"]]


def test_one_who_wants_each_alone_gets_each_alone(post: Post) -> None:
    post.prefers({"channels": {"email": {"digest": 0}}})
    post.raised("n1", TEN)
    post.raised("n2", TEN)
    post.run()
    assert carried(post) == [["n1"], ["n2"]]


def test_the_next_digest_says_nothing_of_the_one_before(post: Post) -> None:
    post.raised("n1", TEN)
    post.run(HOUR)
    post.raised("n2", TEN)
    post.run(HOUR)
    assert carried(post) == [["n1"], ["n2"]]
    assert len({r.message_id for r in post.requests}) == 2


def test_a_silence_skips_what_was_collected_and_a_repeat_says_it_later(post: Post) -> None:
    post.raised("n1", TEN | {"repeat": "1h"})
    post.run(MINUTE)
    post.silence("s", HOUR, alert="cpu")
    post.run(15 * MINUTE)
    assert post.steps()[0] == ("n1", "forward", "email", "skipped", "silenced")
    post.run(2 * HOUR)
    assert carried(post) == [["n1"]]


def test_what_was_read_makes_room_for_the_name_of_what_was_not(post: Post) -> None:
    for i in range(60):
        post.raised(f"n{i:02}", TEN)
    post.run(MINUTE)
    post.mark("read", up_to=len(post.logs[BOX]))
    post.raised("new", TEN)
    post.run(HOUR)
    assert post.titles == ["title new"]


def test_odd_texts_are_said_as_they_are(post: Post) -> None:
    bodies = [
        '{"title":"\\ud800 half","text":"nul \\u0000 and \\u2028"}', '{"title":7,"text":null}', "{}",
        json.dumps({"title": "x" * 5000, "text": "y" * 100_000, "link": "https://a.test/" + "z" * 9000}),
        '{"title":["a"],"text":{"b":1},"link":5}',
    ]  # fmt: skip
    for i, body in enumerate(bodies):
        post.raised(f"n{i}", TEN, body=body.encode())
    post.run(HOUR)
    (message,) = post.messages
    assert message["count"] == 5
    assert "\ud800 half" in message["text"]
    assert "nul \0 and" in message["text"]
    assert len(message["text"]) < 5_000
    json.loads(post.requests[0].body)


def test_many_leave_in_one_bounded_message(post: Post) -> None:
    count = 1_000
    long = json.dumps({"title": "t" * 300, "text": "\N{PILE OF POO}" * 16_000, "data": "d" * 1000}).encode()
    for i in range(count):
        post.raised(f"n{i:05}", TEN, body=long if i < 60 else b'{"title":"t"}')
    post.run()
    tracemalloc.start()
    post.run(10 * MINUTE)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    (message,) = post.messages
    assert message["count"] == count
    assert len(message["notices"]) == 50
    assert message["text"].endswith(f"and {count - 50} more")
    assert len(post.requests[0].body) < 100_000
    assert peak < 200e6


def test_what_a_digest_is_made_of_is_no_notice_of_its_readers(post: Post) -> None:
    post.raised("n1", TEN)
    post.run(HOUR)
    inbox = post.rows.all(notices.select().with_only_columns(notices.c.notice_id).where(notices.c.inbox))
    assert inbox == [("n1",)]


def test_both_channels_have_their_own(post: Post) -> None:
    for i in range(2):
        post.raised(f"n{i}", TEN, (lane("email"), lane("telegram", after_ms=MINUTE)))
    post.run(HOUR)
    assert sorted((r.channel, m["count"]) for r, m in zip(post.requests, post.messages, strict=True)) == [
        ("email", 2), ("telegram", 2),
    ]  # fmt: skip


def play(post: Post, rng: random.Random) -> None:
    """Random people, policies and ends; the time goes on, and not everything is folded at once."""
    wishes: list[dict[str, Any]] = [
        {}, {"channels": {"email": {"digest": "30m"}}}, {"channels": {"email": {"digest": 0}}},
        {"channels": {"email": False}},
        {"alerts": {"cpu": {"email": {"after": "20m", "digest": "5m"}}}},
        {"quiet": [{"from": "22:00", "to": "23:00"}], "time_zone": "Europe/Berlin"},
    ]  # fmt: skip
    policies: list[dict[str, Any]] = [
        {}, {"digest": "10m"}, {"throttle": {"max": 1, "per": "30m"}},
        {"digest": "5m", "throttle": {"max": 2, "per": "1h"}}, {"repeat": "15m", "tell_resolved": True},
        {"repeat": "10m", "throttle": {"max": 2, "per": "1h"}, "tell_resolved": True},
        {"digest": "20m", "tell_resolved": True, "override": ["critical"]},
    ]  # fmt: skip
    for user in ("ann", "bob"):
        post.recipient(user, preferences=rng.choice(wishes), time_zone="Asia/Kolkata")
    raised: list[tuple[str, str]] = []
    for i in range(45):
        user = rng.choice(("ann", "bob"))
        match rng.choice("rrrrrrmmmmespqd"):
            case "r":
                config = rng.randrange(3)
                lanes = (lane(value=user), lane("telegram", rng.choice((0, 7 * MINUTE)), user))
                severity, policy = rng.choice(("info", "critical")), policies[(i // 30 * 3 + config) % len(policies)]
                post.raised(f"n{i}", policy, lanes, user=user, config_id=f"c{config}", severity=severity)
                raised.append((user, f"n{i}"))
            case "m" if raised:
                user, name = rng.choice(raised)
                how = rng.choice(("read", "seen", "unread", "archived", "unarchived", "snoozed", "snoozed"))
                until = post.now + rng.randrange(40) * MINUTE if how == "snoozed" else None
                post.mark(how, name, user=user, until=until)
            case "e" if raised:
                post.ended(*reversed(rng.choice(raised)))
            case "s":
                post.silence("s", rng.randrange(30) * MINUTE, **rng.choice(({"alert": "cpu"}, {"user": user})))
            case "p":
                post.prefers(rng.choice(wishes), user)
            case "d" if post.requests:
                request = rng.choice(post.requests)
                (post.sent if rng.random() < 0.8 else post.failed)(request)
        if rng.random() < 0.6:
            post.run(rng.randrange(12) * MINUTE)
        elif rng.random() < 0.7:  # the outbox waits
            post.fold()
            post.tick()
    post.run(2 * HOUR)


@pytest.mark.parametrize("seed", range(3))
def test_the_same_log_gives_the_same_rows_and_says_nothing_else_however_it_is_cut(
    seed: int, database: Callable[[str], str]
) -> None:
    rng = random.Random(seed)
    post = Post(database("t"), batch=rng.choice((1, 3, 500)))
    play(post, rng)
    assert len(post.requests) > 5
    before = post.rows.dump()
    for name, cuts in (("one", 1), ("all", 100_000), ("random", rng)):
        again = post.again(database(name), cuts)
        assert again.dump() == before, name
        again.store.close()
    post.rows.store.close()
