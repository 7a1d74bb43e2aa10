"""What is left after a run, for the judge to look at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.answers import World
from tests.chaos.told import Key
from topics.events import Event, Record
from topics.fetch import Item, Spot

Span = tuple[float, float]
TABLES = ("notices", "steps", "tallies", "delivery_requests", "delivery_results", "dead_letters", "outbox")


@dataclass(slots=True)
class Said:
    """What was accepted: direct notices by (user, id), the alert's by (user, title); titles that are over; marks."""

    direct: set[Key] = field(default_factory=set)
    alert: set[Key] = field(default_factory=set)
    over: set[str] = field(default_factory=set)
    marks: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Evidence:
    """All that is left after a run. `rows`: of each table its rows as dicts. `taken`: Message-ID to the times at which
    the mail server took it, `sent_to` to whom. `sender_kills` and `sender_freezes`: when.
    """

    log: dict[Spot, list[Item]]
    rows: dict[str, list[dict[str, Any]]]
    folded: set[str]
    taken: dict[str, list[float]]
    sent_to: dict[str, str]
    sender_kills: list[float]
    sender_freezes: list[Span]
    said: Said
    world: World


def events(found: Evidence, topic: str) -> Iterator[tuple[Record, Event]]:
    """What stands on a topic, partition by partition."""
    for spot, items in found.log.items():
        if spot.topic == topic:
            for item in items:
                if isinstance(item, Record) and item.event is not None:
                    yield item, item.event
