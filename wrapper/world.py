"""The world as an alert program is told of it: the configs of its name, the entities it watches, the recipients.

A fold of the compacted topics. `change_in` says what one record means to one alert: a config that was disabled or got
another name is gone for its program; an unreadable record says nothing and only moves the position.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NoReturn

import orjson

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
from topics.fetch import Spot
from topics.json_text import compact, joined, members

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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Change:
    """One input record. `value` null: gone. `timestamp` is never less than that of the record before it on the
    partition.
    """

    spot: Spot
    offset: int
    timestamp: int
    kind: Kind
    id: str = ""
    entity_type: str = ""
    value: Config | Entity | Recipient | None = None
    reason: str = ""

    @property
    def size(self) -> int:
        """About how much memory it takes."""
        return 300 + (len(self.value.text) if self.value else 0)


@dataclass(slots=True)
class World:
    """What exists, by id; entities by (type, id)."""

    configs: dict[str, Config] = field(default_factory=dict)
    entities: dict[tuple[str, str], Entity] = field(default_factory=dict)
    recipients: dict[str, Recipient] = field(default_factory=dict)

    def put(self, change: Change) -> None:
        """Take one change in."""
        value = change.value
        match change.kind:
            case "config":
                self.configs.pop(change.id, None)
                if isinstance(value, Config):
                    self.configs[change.id] = value
            case "entity":
                if isinstance(value, Entity):
                    self.entities[change.entity_type, change.id] = value
                else:
                    self.entities.pop((change.entity_type, change.id), None)
            case "recipient":
                if isinstance(value, Recipient):
                    self.recipients[change.id] = value
                else:
                    self.recipients.pop(change.id, None)


def nothing(record_at: tuple[str, int, int, int]) -> Change:
    """A record (topic, partition, offset, timestamp) that only moves the position."""
    topic, partition, offset, timestamp = record_at
    return Change(Spot(topic, partition), offset, timestamp, "nothing")


def change_in(record: Record, alert: str) -> Change:
    """What `record` of an input topic means to `alert`. Unreadable when its body can't be used."""
    event = record.event
    if isinstance(event, EntityChanged):  # nearly all are
        at = record.timestamp if event.at is None else event.at
        gone = event.op == "deleted"
        value = None if gone else Entity(_object(event.body, event.body_key), at, record.cause)
        spot = Spot(record.topic, record.partition)
        return Change(spot, record.offset, record.timestamp, "entity", event.entity_id, event.entity_type, value)
    base = nothing((record.topic, record.partition, record.offset, record.timestamp))
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
        text = body.decode()
        value = _loads(text)
    except (ValueError, RecursionError) as error:
        msg = f"the body is not JSON: {str(error)[:200]}"
        raise Unreadable(msg) from error
    if not isinstance(value, dict):
        msg = "the body is not a JSON object"
        raise Unreadable(msg)
    return compact(text) if "\n" in text or "\r" in text else text.strip()


def _loads(text: str) -> Any:
    """What the text says; some numbers and escapes that JSON knows only Python's own reader takes."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text, parse_constant=_no_constant)


def _no_constant(name: str) -> NoReturn:
    msg = f"{name} is not JSON"
    raise ValueError(msg)
