"""Throttles: never more messages in a window than the config allows, and the rest leaves as one, in its turn."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from tests.unit.projections.post import BOX, HOUR, MINUTE, T0, Post, lane
from topics.events import Due, Record

ONE = {"throttle": {"max": 1, "per": "1h"}}
THREE = {"throttle": {"max": 3, "per": "1h"}}


@pytest.fixture
def post(database: Callable[[str], str]) -> Iterator[Post]:
    made = Post(database("t"))
    made.recipient()
    yield made
    made.rows.store.close()


def most_within(times: Sequence[int], span: int) -> int:
    return max((sum(t - span < other <= t for other in times) for t in times), default=0)


def test_what_is_too_much_leaves_as_one_message_with_its_count_when_the_window_frees(post: Post) -> None:
    for i in range(10):
        post.raised(f"n{i}", THREE)
        post.run(MINUTE)
    assert len(post.requests) == 3
    post.run(HOUR)
    assert [m.get("count", 1) for m in post.messages] == [1, 1, 1, 7]
    assert post.messages[3]["notices"] == [f"n{i}" for i in range(3, 10)]
    assert most_within(post.told_at(), HOUR) == 3
    assert post.told_at()[3] == T0 + HOUR


def test_a_flood_that_is_asked_in_one_batch_is_throttled(post: Post) -> None:
    for i in range(50):
        post.raised(f"n{i:02}", THREE)
    post.run()
    assert len(post.requests) == 3
    post.run(HOUR)
    assert post.messages[3]["count"] == 47


def test_what_was_decided_but_not_read_back_counts(post: Post) -> None:
    post.batch = 1
    for i in range(20):
        post.raised(f"n{i:02}", THREE)
    post.fold()
    post.tick()
    post.fold()  # each Due in a transaction of its own, and no answer is on the log
    post.run()
    assert len(post.requests) == 3
    post.run(HOUR)
    assert post.messages[3]["count"] == 17


def test_what_is_in_flight_counts_only_where_it_is_a_message(post: Post) -> None:
    """Under a steady flood something is always being decided: the digest has its turn nevertheless."""
    post.raised("n0", ONE)
    post.run(MINUTE)
    for i in range(1, 4):
        post.raised(f"n{i}", ONE)
    post.run(58 * MINUTE)
    post.now = T0 + HOUR
    for i in range(4, 9):
        post.raised(f"n{i}", ONE)
    post.fold()
    post.batch = 1
    post.tick()  # the digest's Due and five others
    asked = [r.event for r in post.logs[BOX][-6:] if isinstance(r, Record) and isinstance(r.event, Due)]
    del post.logs[BOX][-6:]
    for event in sorted(asked, key=lambda e: e.what == "digest"):  # asked last, while the others are in flight
        post.say(BOX, event)
    assert [e.what for e in asked].count("digest") == 1
    post.run(MINUTE)
    assert [m.get("count", 1) for m in post.messages] == [1, 3]


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_never_more_than_the_most_in_any_window_of_a_long_flood(post: Post, most: int) -> None:
    policy = {"throttle": {"max": most, "per": "1h"}}
    for i in range(60):
        post.raised(f"n{i:02}", policy)
        post.run((7 if i % 3 else 1) * MINUTE)
    post.run(3 * HOUR)
    assert most_within(post.told_at(), HOUR) <= most
    assert sum(m.get("count", 1) for m in post.messages) == 60
    assert {s for *_, s, _ in post.steps()} == {"delivered"}


@pytest.mark.parametrize("most", [2, 3, 4])
def test_repeats_count_each_time(post: Post, most: int) -> None:
    post.raised("n1", {"throttle": {"max": most, "per": "12h"}, "repeat": "1h"})
    post.run(40 * HOUR)
    assert most_within(post.told_at(), 12 * HOUR) <= most
    assert len(post.requests) >= 3 * most


def test_each_config_channel_and_person_is_counted_alone(post: Post) -> None:
    post.recipient("bob")
    both = (lane("email"), lane("telegram"))
    for i in range(2):
        post.raised(f"a{i}", ONE, both)
        post.raised(f"b{i}", ONE, both, config_id="c2")
        post.raised(f"c{i}", ONE, (lane(value="bob"),), user="bob")
    post.run()
    assert sorted((r.user, r.notice_id[0], r.channel) for r in post.requests) == [
        ("ann", "a", "email"), ("ann", "a", "telegram"), ("ann", "b", "email"), ("ann", "b", "telegram"),
        ("bob", "c", "email"),
    ]  # fmt: skip


def test_nothing_overtakes_what_was_throttled(post: Post) -> None:
    post.raised("n0", ONE)
    post.run(MINUTE)
    post.raised("n1", ONE)
    post.run(59 * MINUTE - 1)
    post.now = T0 + HOUR
    post.raised("n2", ONE)  # its Due and the digest's come together
    post.run(2 * HOUR)
    carried = [m.get("notices", [m["notice_id"]]) for m in post.messages]
    assert carried in ([["n0"], ["n1"], ["n2"]], [["n0"], ["n1", "n2"]])


def test_what_was_read_meanwhile_is_not_in_the_message(post: Post) -> None:
    for i in range(4):
        post.raised(f"n{i}", ONE)
    post.run(MINUTE)
    post.mark("read", "n1", "n2")
    post.run(HOUR)
    assert [m.get("notices") for m in post.messages] == [None, ["n3"]]
    assert post.titles[1] == "title n3"


def test_a_digest_that_the_throttle_holds_waits_and_stays_one(post: Post) -> None:
    policy = {"digest": "10m", **ONE}
    post.raised("n1", policy)
    post.run(11 * MINUTE)
    assert [m["count"] for m in post.messages] == [1]
    for i in range(2, 5):
        post.raised(f"n{i}", policy)
        post.run(12 * MINUTE)
    assert len(post.messages) == 1
    post.run(HOUR)
    assert [m["count"] for m in post.messages] == [1, 3]
    assert most_within(post.told_at(), HOUR) == 1


def test_what_a_config_collects_is_said_to_wait_for_the_digest_not_for_the_throttle(post: Post) -> None:
    policy = {"digest": "10m", **THREE}
    post.raised("n1", policy)
    post.run(MINUTE)
    post.raised("n2", policy)
    post.run()
    assert [a[2:] for a in post.answers] == [("postpone", "digest")] * 2


def test_a_config_that_is_changed_changes_its_open_digest(post: Post) -> None:
    day = {"throttle": {"max": 1, "per": "1d"}}
    for i in range(3):
        post.raised(f"old{i}", day)
    post.run(25 * HOUR)
    assert [m.get("count", 1) for m in post.messages] == [1, 2]
    for i in range(3):
        post.raised(f"new{i}", ONE)
    post.run(2 * HOUR)
    assert [m.get("count", 1) for m in post.messages] == [1, 2, 1, 2]


def test_what_the_throttle_saw_stands_in_the_answer_also_where_it_lets_through(post: Post) -> None:
    post.raised("n1", THREE)
    post.run()
    assert post.looked()["throttle"] == {"told": 0, "max": 3, "per_ms": HOUR}


def test_critical_is_throttled_too_whatever_it_overrides(post: Post) -> None:
    policy = {**ONE, "override": ["critical"]}
    for i in range(3):
        post.raised(f"n{i}", policy, severity="critical")
    post.run()
    assert len(post.requests) == 1
