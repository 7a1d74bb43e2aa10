"""The events that tell what came of a delivery. Their ids are made from the question, so that repeats are one event to
every reader.

A golden test freezes the recipes.
"""

from __future__ import annotations

from typing import Any

from sender.channels.channel import Sent
from sender.delivery import Delivery
from sender.policy import Again, Verdict
from topics.catalogue import DELIVERIES
from topics.events import Cause, DeliveryFailed, DeliveryRetried, DeliverySent
from topics.ids import derived_id
from topics.json_text import dumps

ANSWER_CHARACTERS = 2_000

ResultEvent = DeliverySent | DeliveryRetried | DeliveryFailed


def result_event(verdict: Verdict, delivery: Delivery, attempt: int, *, producer: str, occurred_at: int) -> ResultEvent:
    """The record for one verdict on attempt number `attempt`."""
    this = delivery.delivery_id
    common: dict[str, Any] = {
        "producer": producer,
        "occurred_at": occurred_at,
        "caused_by": (Cause(derived_id("requested", this), DELIVERIES, delivery.partition, delivery.offset),),
        "delivery_id": this,
        "user": delivery.user,
        "notice_id": delivery.notice_id,
        "attempt": attempt,
        "body": dumps({"answer": verdict.answer[:ANSWER_CHARACTERS]}).encode("utf-8", "replace"),
    }
    if isinstance(verdict, Sent):
        return DeliverySent(event_id=derived_id("delivery-sent", this), **common)
    if isinstance(verdict, Again):
        return DeliveryRetried(
            event_id=derived_id("delivery-retried", this, attempt), next_at=verdict.next_at, **common
        )
    return DeliveryFailed(event_id=derived_id("delivery-failed", this), reason=verdict.reason, **common)
