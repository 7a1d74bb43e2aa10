"""A record as JSON: where it stands, when, and everything its event says. A body whose key is gone is "erased"."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any

from topics.dead_letters import DeadLetter
from topics.events import Event
from topics.fetch import Broken, Item


def as_members(item: Item) -> dict[str, Any]:
    """Everything about it, ready for JSON."""
    place = {"topic": item.topic, "partition": item.partition, "offset": item.offset, "at": rfc3339(item.timestamp)}
    if isinstance(item, Broken):
        key = item.key.decode(errors="replace") if item.key is not None else None
        return place | {"key": key, "event": None, "broken": item.reason, "hex": item.value.hex()}
    if isinstance(item, DeadLetter):
        of = {"topic": item.source_topic, "partition": item.source_partition, "offset": item.source_offset}
        return place | {"key": None, "event": None, "dead_letter": of | {"reason": item.reason}}
    event = item.event
    value = event_members(event) if event else None
    return place | {"key": item.key, "event": type(event).__name__ if event else None, "value": value}


def event_members(event: Event) -> dict[str, Any]:
    """The event's fields; bodies as what they say."""
    return _fields(event)


def rfc3339(at: int) -> str:
    """Milliseconds since 1970 as RFC 3339 in UTC; what no calendar holds as the end of it."""
    at = min(max(at, 0), 253_402_300_799_999)
    return f"{datetime.fromtimestamp(at // 1000, UTC):%Y-%m-%dT%H:%M:%S}.{at % 1000:03d}Z"


def _fields(value: Any) -> dict[str, Any]:
    erased = getattr(value, "body_key", None) is not None
    return {f.name: "erased" if erased and f.name == "body" else _plain(getattr(value, f.name)) for f in fields(value)}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return _fields(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return _body(value) if isinstance(value, bytes) else value


def _body(value: bytes) -> Any:
    """Bodies are JSON text; an alert's state is compressed, and shown by its size."""
    try:
        return json.loads(value) if value else None
    except (ValueError, RecursionError):
        return f"{len(value)} bytes"
