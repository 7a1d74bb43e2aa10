"""Which records somebody wants to see: those that concern a user, or are about an entity. The bytes are asked first, so
that what does not even hold the name is never decoded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from topics.catalogue import ALERT_CHECKPOINTS, ALERT_REPORTS, DELIVERIES, NOTICES, SCHEMAS, entity_topic
from topics.events import AlertCommitted, Event, Record
from topics.fetch import Item, Spot
from topics.partition import partition_of
from topics.read import HistoryReader

NOBODY = (SCHEMAS, ALERT_CHECKPOINTS, ALERT_REPORTS)  # and entities: these events name no user


class EntityName(NamedTuple):
    """One entity."""

    type: str
    id: str


@dataclass(frozen=True, slots=True)
class Selection:
    """Of these topics what concerns `user` and is about `entity`; null: whatever."""

    topics: tuple[str, ...]
    user: str | None = None
    entity: EntityName | None = None

    def spots(self, reader: HistoryReader) -> list[Spot]:
        """The partitions that can hold any of it."""
        return [s for s in reader.spots(self._topics()) if self._may_hold(s, reader)]

    def maybe(self, message: Any) -> bool:
        """Whether a client's message is worth decoding."""
        data = (message.key or b"") + b"\0" + (message.value or b"")
        names = (self.user, self.entity.id if self.entity else None)
        return all(name is None or name.encode() in data for name in names)

    def holds(self, item: Item) -> bool:
        """Whether it is wanted; what can't be decoded only where everything is."""
        if isinstance(item, Record):
            return (self.user is None or concerns(item, self.user)) and (
                self.entity is None or is_about(item, self.entity)
            )
        return self.user is None and self.entity is None

    def _topics(self) -> Iterable[str]:
        return (t for t in self.topics if self.user is None or not (t in NOBODY or t.startswith(entity_topic(""))))

    def _may_hold(self, spot: Spot, reader: HistoryReader) -> bool:
        if self.user is None or spot.topic not in (NOTICES, DELIVERIES):
            return True
        return spot.partition == partition_of(self.user, len(reader.spots([spot.topic])))


def concerns(record: Record, user: str) -> bool:
    """Whether the event is by, for or about this user."""
    event = record.event
    named = {getattr(event, name, None) for name in ("user", "recipient_id", "subject", "by")}
    lanes = {x.value for said in _parts(event) for x in getattr(said, "lanes", ()) if x.kind == "recipient"}
    return user in named or user in getattr(event, "users", ()) or user in lanes


def is_about(record: Record, entity: EntityName) -> bool:
    """Whether it tells of this entity: its own changes, and what was said about it."""
    if record.topic == entity_topic(entity.type):
        return record.key == entity.id
    return any(
        (getattr(said, "entity_type", None), getattr(said, "entity_id", None)) == entity
        for said in _parts(record.event)
    )


def _parts(event: Event | None) -> Iterable[object]:
    return (event, *event.effects) if isinstance(event, AlertCommitted) else (event,)
