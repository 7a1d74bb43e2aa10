"""Events to bytes and back: Avro single-object encoding (C3 01, fingerprint, body).

Any version ever published is resolved to today's dataclass. A fingerprint that nobody knows is not a broken record (a
newer writer may be at work during a rolling upgrade): it raises UnknownSchema, and the reader waits; bytes that can't
be decoded raise Undecodable.
"""

from __future__ import annotations

import io
from functools import cache, partial
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from topics import events
from topics.avro_reader import Read, reader_of
from topics.avro_writer import Write, writer_of
from topics.events import Event
from topics.schemas import Schema, all_schemas, newest_schemas, parse

REMEMBERED, LARGEST_REMEMBERED = 5_000, 2_048  # events, bytes of one
MAGIC = b"\xc3\x01"
HEAD = 10


class Undecodable(ValueError):
    """These bytes are no event of ours; the message says why."""


class UnknownSchema(LookupError):
    """An event by a schema that this program has not seen: `fingerprint` (8 bytes)."""

    def __init__(self, fingerprint: bytes) -> None:
        super().__init__(f"no schema with fingerprint {fingerprint.hex()} is known here yet")
        self.fingerprint = fingerprint


_classes: dict[str, type[Event]] = {
    name: c for name, c in vars(events).items() if isinstance(c, type) and issubclass(c, Event) and c is not Event
}
_remembered: dict[bytes, Event] = {}
_writers: dict[bytes, Schema] = {s.fingerprint: s for s in all_schemas() if s.event in _classes}


def event_types() -> dict[str, type[Event]]:
    """Event name to its dataclass."""
    return dict(_classes)


def learn(schema_text: str) -> bool:
    """Take in a schema found on the log; true if it is a version of an event known here."""
    schema = parse(schema_text)
    if schema.event not in _classes:
        return False
    _writers.setdefault(schema.fingerprint, schema)
    return True


def encode(event: Event) -> bytes:
    """The record's value by the newest schema. AttributeError, TypeError or ValueError for a value of another type."""
    return _writer(type(event).__name__)(event)


@cache
def _writer(name: str) -> Write:
    schema = newest_schemas()[name]
    return writer_of(schema.parsed, MAGIC + schema.fingerprint)


def remember(data: bytes, event: Event) -> None:
    """These bytes of `encode(event)` will be read back soon: the next `decode` of them gives `event` itself."""
    if len(data) > LARGEST_REMEMBERED:
        return
    if len(_remembered) >= REMEMBERED:
        _remembered.clear()
    _remembered[data] = event


def decode(data: bytes) -> Event:
    """The event in a record's value. Undecodable or UnknownSchema."""
    if _remembered and (made := _remembered.pop(data, None)) is not None:
        return made
    if len(data) < HEAD or data[:2] != MAGIC:
        msg = "not an Avro single-object encoding"
        raise Undecodable(msg)
    try:
        event, end = _reader(data[2:HEAD])(data, HEAD)
    except UnknownSchema:
        raise
    except Exception as error:  # whatever the broken bytes lead to
        msg = f"broken body of {event_name(data)}: {type(error).__name__}: {error}"
        raise Undecodable(msg) from error
    if end != len(data):
        msg = f"{event_name(data)} ends at byte {end} of {len(data)}"
        raise Undecodable(msg)
    found: Event = event
    return found


@cache
def _reader(fingerprint: bytes) -> Read:
    """What reads an event by this schema as today's dataclass. UnknownSchema."""
    writer = _writers.get(fingerprint)
    if writer is None:
        raise UnknownSchema(fingerprint)
    newest = newest_schemas()[writer.event]
    read = reader_of(newest.parsed, partial(getattr, events))
    if fingerprint == newest.fingerprint:
        return read

    def resolved(data: bytes, at: int) -> tuple[Any, int]:
        body, out = io.BytesIO(data), io.BytesIO()
        body.seek(at)
        schemaless_writer(out, newest.parsed, schemaless_reader(body, writer.parsed, newest.parsed))
        return read(out.getvalue(), 0)[0], body.tell()

    return resolved


def event_name(data: bytes | None) -> str:
    """Which event this is, without decoding it; empty for what is none that is known here."""
    writer = _writers.get(data[2:HEAD]) if data and data[:2] == MAGIC else None
    return writer.event if writer else ""
