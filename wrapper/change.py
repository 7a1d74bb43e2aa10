"""What a record of the compacted topics means to one alert: `change_in`.

A config that was disabled or got another name is gone for its program; an unreadable record says nothing and only moves
the position.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from topics.catalogue import ALERT_CONFIGS, RECIPIENTS
from topics.events import (
    AlertConfigDeleted,
    AlertConfigured,
    Cause,
    EntityChanged,
    Lane,
    RecipientChanged,
    RecipientDeleted,
    Record,
    TopicOpened,
)
from topics.fetch import Broken, Spot
from topics.json_text import checked, compact, joined, members

RECIPIENT_FIELDS = ("name", "locale", "time_zone")  # no addresses: a program has no business with them


class Unreadable(ValueError):
    """The record's body is not the JSON object it has to be."""


@dataclass(frozen=True, slots=True)
class Config:
    """`text` is the whole config as one line of JSON; `metric` its raw text."""

    text: str
    metric: str
    lanes: tuple[Lane, ...]
    forward: str
    cause: Cause


@dataclass(slots=True)
class Entity:
    """`at`: the change's own time (ms), or the log's."""

    text: str
    at: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Recipient:
    """What programs may know of a person."""

    text: str


Kind = Literal["config", "entity", "recipient", "nothing"]


@dataclass(slots=True)  # not frozen, which would take longer than all else that is done to most of them
class Change:
    """One input record. `value` null: gone. `timestamp` is never less than that of the record before it on the
    partition; `event_id` is empty where there is no event.
    """

    spot: Spot
    offset: int
    timestamp: int
    kind: Kind
    id: str = ""
    entity_type: str = ""
    value: Config | Entity | Recipient | None = None
    reason: str = ""
    event_id: str = ""

    @property
    def size(self) -> int:
        """About how much memory it takes."""
        return 300 + (len(self.value.text) if self.value else 0)


def nothing(record: Record | Broken) -> Change:
    """A record that only moves the position."""
    event = record.event if isinstance(record, Record) else None
    event_id = event.event_id if event else ""
    return Change(Spot(record.topic, record.partition), record.offset, record.timestamp, "nothing", event_id=event_id)


def change_in(record: Record, alert: str) -> Change:
    """What `record` of an input topic means to `alert`. Unreadable when its body can't be used."""
    event = record.event
    if isinstance(event, EntityChanged):  # nearly all are
        at = record.timestamp if event.at is None else event.at
        gone = event.op == "deleted"
        value = None if gone else Entity(_object(event.body, event.body_key), at, record.cause)
        spot, about = (
            Spot(record.topic, record.partition),
            (event.entity_id, event.entity_type, value, "", event.event_id),
        )
        return Change(spot, record.offset, record.timestamp, "entity", *about)
    base = nothing(record)
    match event:
        case TopicOpened():
            return base
        case AlertConfigured():
            base = replace(base, kind="config", id=event.config_id)
            if event.name != alert or not event.enabled:
                return replace(base, reason="disabled" if event.name == alert else "renamed")
            text = _object(event.body, event.body_key)
            return replace(
                base, value=Config(text, members(text).get("metric", "null"), event.lanes, event.forward, record.cause)
            )
        case RecipientChanged():
            told = {k: v for k, v in members(_object(event.body, event.body_key)).items() if k in RECIPIENT_FIELDS}
            return replace(base, kind="recipient", id=event.recipient_id, value=Recipient(joined(told)))
        case AlertConfigDeleted():
            return replace(base, kind="config", id=event.config_id, reason="deleted")
        case RecipientDeleted():
            return replace(base, kind="recipient", id=event.recipient_id)
        case None:
            return _tombstone(base, record.key)
    return base


def _tombstone(base: Change, key: str) -> Change:
    if base.spot.topic == ALERT_CONFIGS:
        return replace(base, kind="config", id=key, reason="deleted")
    if base.spot.topic == RECIPIENTS:
        return replace(base, kind="recipient", id=key)
    return replace(base, kind="entity", id=key, entity_type=base.spot.topic.partition(".")[2])


def _object(body: bytes | None, body_key: str | None) -> str:
    """The body as one line of JSON, otherwise untouched."""
    if body is None or body_key is not None:
        msg = "there is no plain body"
        raise Unreadable(msg)
    try:
        text = checked(body, an_object=True)
    except ValueError as error:
        msg = f"the body is no JSON object: {str(error)[:200]}"
        raise Unreadable(msg) from error
    return compact(text) if "\n" in text or "\r" in text else text.strip()
