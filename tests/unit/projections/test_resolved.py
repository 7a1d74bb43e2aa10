"""The end of a condition is told to whom it was told, once that is sure; what was not sent is recalled."""

from collections.abc import Callable, Iterator

import pytest

from tests.unit.projections.post import HOUR, MINUTE, Post, lane

TELL = {"tell_resolved": True}
BOTH = (lane("email"), lane("telegram"))


@pytest.fixture
def post(database: Callable[[str], str]) -> Iterator[Post]:
    made = Post(database("t"))
    made.recipient()
    yield made
    made.rows.store.close()


def test_who_was_told_is_told_that_it_is_over(post: Post) -> None:
    post.raised("n1", TELL)
    post.run()
    post.sent(post.requests[0])
    post.ended("n1")
    post.run(MINUTE)
    assert post.titles == ["title n1", "Resolved: title n1"]
    assert post.messages[1]["resolved_at"] > 0


def test_on_each_channel_on_which_it_was_told(post: Post) -> None:
    post.raised("n1", TELL, BOTH)
    post.run()
    for request in post.requests:
        post.sent(request)
    post.ended("n1")
    post.run(MINUTE)
    assert sorted(r.channel for r in post.requests[2:]) == ["email", "telegram"]


def test_and_on_no_channel_on_which_it_could_not_be_told(post: Post) -> None:
    post.raised("n1", TELL, BOTH)
    post.run()
    first, second = post.requests
    post.sent(first)
    post.failed(second)
    post.ended("n1")
    post.run(MINUTE)
    assert [r.channel for r in post.requests[2:]] == [first.channel]


def test_nobody_is_told_of_the_end_of_what_they_never_heard_of(post: Post) -> None:
    post.raised("late", TELL, (lane(after_ms=HOUR),))
    post.raised("quiet", {})
    post.run()
    post.sent(post.requests[0])
    post.ended("late")
    post.ended("quiet")
    post.run(2 * HOUR)
    assert post.titles == ["title quiet"]


def test_what_is_being_sent_is_recalled_and_then_nobody_is_told(post: Post) -> None:
    post.raised("n1", TELL)
    post.run()
    post.ended("n1")
    post.run(2 * HOUR)
    assert [r.delivery_id for r in post.recalls] == [post.requests[0].delivery_id]
    assert post.titles == ["title n1"]
    assert post.answers[-1][2:] == ("skip", "not_told")


def test_what_is_being_sent_is_waited_for_and_sent_wins_over_the_recall(post: Post) -> None:
    post.raised("n1", TELL)
    post.run()
    post.ended("n1")
    post.sent(post.requests[0])  # before the recall
    post.run(2 * HOUR)
    assert post.titles == ["title n1", "Resolved: title n1"]


def test_what_a_digest_carries_is_not_recalled_but_waited_for(post: Post) -> None:
    post.raised("n1", TELL | {"digest": "10m"})
    post.raised("n2", TELL | {"digest": "10m"})
    post.run(10 * MINUTE)
    assert post.messages[0]["count"] == 2
    post.ended("n1")
    post.run(5 * MINUTE)
    assert not post.recalls
    assert post.answers[-1] == ("n1", "resolved", "postpone", "delivery_pending")
    post.sent(post.requests[0])
    post.run(HOUR)
    assert post.titles == ["2 notices", "Resolved: title n1"]


def test_what_ended_while_its_digest_was_decided_is_told_as_well(post: Post) -> None:
    post.raised("n1", TELL | {"digest": "10m"})
    post.raised("n2", TELL | {"digest": "10m"})
    post.run(9 * MINUTE)
    post.now += MINUTE
    post.tick()
    post.ended("n1")
    post.ended("n2")
    post.run(MINUTE)
    post.sent(post.requests[0])
    post.run(HOUR)
    assert post.titles == ["2 notices", "Resolved: title n1", "Resolved: title n2"]


def test_what_ended_while_it_was_decided_is_told_as_well(post: Post) -> None:
    post.raised("n1", TELL, BOTH)
    post.fold()
    post.tick()
    post.ended("n1")
    post.run(MINUTE)
    for request in post.requests:
        post.sent(request)
    post.run(HOUR)
    assert sorted(post.titles) == ["Resolved: title n1"] * 2 + ["title n1"] * 2


def test_a_failed_delivery_told_nobody(post: Post) -> None:
    post.raised("n1", TELL)
    post.run()
    post.failed(post.requests[0])
    post.ended("n1")
    post.run(HOUR)
    assert post.titles == ["title n1"]
    assert post.answers[-1] == ("n1", "resolved", "skip", "not_told")
    assert post.looked()["told"] == ["failed"]


def test_the_end_waits_for_the_morning(post: Post) -> None:
    post.raised("n1", TELL)
    post.run()
    post.sent(post.requests[0])
    post.prefers({"quiet": [{"from": "22:00", "to": "07:00"}]})  # it is 22:13
    post.ended("n1")
    post.run(8 * HOUR)
    assert post.titles == ["title n1"]
    post.run(HOUR)
    assert post.titles == ["title n1", "Resolved: title n1"]


def test_who_has_read_it_is_told_of_the_end_too(post: Post) -> None:
    post.raised("n1", TELL)
    post.run()
    post.sent(post.requests[0])
    post.mark("read", "n1")
    post.ended("n1")
    post.run(HOUR)
    assert post.titles[1:] == ["Resolved: title n1"]


def test_whoever_heard_by_a_repeat_alone_is_told_though_later_repeats_failed_or_wait(post: Post) -> None:
    post.raised("n1", TELL | {"repeat": "1h", "throttle": {"max": 1, "per": "90m"}})
    post.run()
    post.failed(post.requests[0])
    post.run(HOUR + 31 * MINUTE)  # throttled, carried by a digest
    assert len(post.requests) == 2
    post.sent(post.requests[1])
    post.run(HOUR)  # the next one is collected
    assert ("n1", "repeat", "email", "collected", "throttle") in post.steps()
    post.ended("n1")
    post.run(3 * HOUR)
    assert post.titles[2:] == ["Resolved: title n1"]
