"""The ids of the sender's events are frozen: a changed recipe would say everything again."""

from sender.channels.channel import Rejected, Sent
from sender.delivery import Delivery
from sender.policy import Again, Verdict
from sender.results import ANSWER_CHARACTERS, result_event
from topics.codec import decode, encode
from topics.events import DeliveryFailed, DeliveryRetried, DeliverySent

DELIVERY = Delivery(
    delivery_id="9f6d1c2e-1f7a-4f57-b1b0-6f8c9b1d2e3f",
    user="u1",
    notice_id="n1",
    partition=2,
    offset=81,
    channel="email",
    message_id="m1",
    deadline_at=9,
    requested_at=1,
    body="{}",
)


def event(verdict: Verdict, attempt: int = 1) -> DeliverySent | DeliveryRetried | DeliveryFailed:
    return result_event(verdict, DELIVERY, attempt, producer="sender@here:1", occurred_at=5)


def test_the_ids_are_made_from_the_question_only() -> None:
    found = [
        event(Sent("250 a")).event_id,
        event(Again(7, "451 a"), 1).event_id,
        event(Again(8, "451 b"), 2).event_id,
        event(Rejected("550")).event_id,
    ]
    assert found == GOLDEN
    assert event(Sent("250 b"), 3).event_id == GOLDEN[0]
    assert event(Rejected("", "too_late"), 3).event_id == GOLDEN[3]


GOLDEN = [
    "3b103da0-27a8-51d2-8baa-d67e2fe630b0",
    "7e75719a-267c-5d99-87fd-2963e5eabfbb",
    "20776c80-a113-5fbf-9064-b4579094d2b3",
    "8dc99301-55ba-5c17-a051-2bdaa68058f0",
]


def test_an_event_holds_the_answer_and_where_it_comes_from() -> None:
    sent = event(Sent("250 “ok”"), 4)
    assert isinstance(sent, DeliverySent)
    assert sent.body == '{"answer":"250 “ok”"}'.encode()
    assert (sent.attempt, sent.user, sent.notice_id) == (4, "u1", "n1")
    assert (sent.caused_by[0].topic, sent.caused_by[0].partition, sent.caused_by[0].offset) == ("deliveries", 2, 81)


def test_every_result_can_be_written_however_long_or_broken_the_answer_is() -> None:
    for verdict in (Sent("x" * 10_000), Again(7, "\ud800"), Rejected("ä" * 10_000)):
        one = event(verdict)
        assert decode(encode(one)) == one
        assert len(one.body) <= 2 * ANSWER_CHARACTERS + 20
