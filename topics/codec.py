"""Events to bytes and back: Avro single-object encoding (C3 01, fingerprint, body).

Any version ever published is resolved to today's dataclass. A fingerprint that nobody knows is not a broken record (a
newer writer may be at work during a rolling upgrade): it raises UnknownSchema, and the reader waits; bytes that can't
be decoded raise Undecodable.
"""

from __future__ import annotations

import dataclasses
import io
import types
import typing
from collections.abc import Callable
from functools import cache
from typing import Any

from fastavro import schemaless_reader, schemaless_writer

from topics import events
from topics.events import Event
from topics.schemas import Schema, all_schemas, newest_schemas, parse

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
    """The record's value by the newest schema. Raises fastavro's errors for a value of the wrong type."""
    schema = newest_schemas()[type(event).__name__]
    out = io.BytesIO()
    out.write(MAGIC + schema.fingerprint)
    schemaless_writer(out, schema.parsed, _plain(event))
    return out.getvalue()


def decode(data: bytes) -> Event:
    """The event in a record's value. Undecodable or UnknownSchema."""
    if len(data) < HEAD or data[:2] != MAGIC:
        msg = "not an Avro single-object encoding"
        raise Undecodable(msg)
    writer = _writers.get(data[2:HEAD])
    if writer is None:
        raise UnknownSchema(bytes(data[2:HEAD]))
    reader = newest_schemas()[writer.event]
    body = io.BytesIO(data)
    body.seek(HEAD)
    try:
        same = writer.fingerprint == reader.fingerprint  # then nothing has to be resolved, which takes twice as long
        fields: Any = schemaless_reader(body, writer.parsed, None if same else reader.parsed)
    except Exception as error:  # fastavro raises whatever the broken bytes lead it to
        msg = f"broken body of {writer.event}: {type(error).__name__}"
        raise Undecodable(msg) from error
    if body.tell() != len(data):
        msg = f"{len(data) - body.tell()} bytes too many after {writer.event}"
        raise Undecodable(msg)
    event: Event = _builder(writer.event)(fields)
    return event


def event_name(data: bytes | None) -> str:
    """Which event this is, without decoding it; empty for what is none that is known here."""
    writer = _writers.get(data[2:HEAD]) if data and data[:2] == MAGIC else None
    return writer.event if writer else ""


def _plain(value: Any) -> dict[str, Any]:
    """The dict that fastavro writes for an event, or for a part of one."""
    cls: Any = type(value)
    names, lists = _fields(cls)
    found = {name: getattr(value, name) for name in names}
    for name in lists:
        if found[name]:
            found[name] = [_plain(v) if hasattr(v, "__dataclass_fields__") else v for v in found[name]]
    return found


@cache
def _fields(cls: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of all fields, and of those that hold tuples."""
    hints = typing.get_type_hints(cls)
    return tuple(hints), tuple(name for name, hint in hints.items() if typing.get_origin(hint) is tuple)


@cache
def _builder(name: str) -> Callable[[dict[str, Any]], Any]:
    """From fastavro's dict to the dataclass called `name`, nested ones included."""
    cls: Any = getattr(events, name)
    convert: list[tuple[str, Callable[[Any], Any]]] = []
    lists: list[str] = []  # of texts
    for field, hint in typing.get_type_hints(cls).items():
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is not tuple:
            continue
        item: Any = typing.get_args(hint)[0]
        nested = dataclasses.is_dataclass(item)
        if item is str:
            lists.append(field)
        convert.append((field, _tuple_of(_builder(item.__name__)) if nested else tuple))

    def build(fields: dict[str, Any]) -> Any:
        texts = [value for value in fields.values() if type(value) is str]
        for field in lists:
            texts += fields[field]
        if "\0" in "".join(texts):
            msg = f"a text in {name} holds NUL"
            raise Undecodable(msg)
        for field, make in convert:
            fields[field] = make(fields[field]) if fields[field] else ()
        return cls(**fields)

    return build


def _tuple_of(make: Callable[[dict[str, Any]], Any]) -> Callable[[Any], tuple[Any, ...]]:
    return lambda items: tuple(make(i) for i in items)
