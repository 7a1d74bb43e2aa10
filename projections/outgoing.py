"""What a fold or a decision asks to be said: an event with its topic and key, before it stands in the outbox."""

from __future__ import annotations

from dataclasses import dataclass

from topics.events import Event


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`event.event_id` is derived from the question that the event answers, so saying it twice changes nothing."""

    topic: str
    key: str
    event: Event


class Refused(ValueError):
    """`apply` can't take this record: it becomes a dead letter with this text as the reason.

    Raised before anything was changed.
    """
