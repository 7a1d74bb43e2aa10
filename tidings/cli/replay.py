"""`tidings replay`: reads history from the log, in the order of the log's time, as text or as JSON lines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidings.cli.failures import Failed, Wrong, in_one_line
from tidings.cli.log_of import data_option, kafka_settings
from tidings.cli.times import Time, shown

if TYPE_CHECKING:
    from topics.events import Event, Record
    from topics.fetch import Broken

HIDDEN = frozenset({"event_id", "producer", "occurred_at", "caused_by", "body_key"})
WIDTH = 160


@click.command()
@click.option("--topic", multiple=True, help="Only this topic; may be repeated.  [default: all]")
@click.option("--user", help="Only what concerns this user.")
@click.option("--since", type=Time(), help="From this time on: RFC 3339, or how long ago (5m).")
@click.option("--until", type=Time(), help="Before this time.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, complete.")
@data_option
def replay(
    topic: tuple[str, ...],
    user: str | None,
    since: int | None,
    until: int | None,
    follow: bool,  # noqa: FBT001
    as_json: bool,  # noqa: FBT001
    data: Path,
) -> None:
    """Read history from the log. The time of an event is the log's."""
    with in_one_line():
        settings = kafka_settings(data)
        known = settings.catalogue.topics()
        for name in topic:
            if name not in known:
                raise Wrong(f"there is no topic {name!r}: there are {', '.join(known)}")
        from topics.codec import UnknownSchema  # noqa: PLC0415 - loads a Kafka client
        from topics.events import Record  # noqa: PLC0415
        from topics.read import history  # noqa: PLC0415

        learn_from_the_log(history(settings.cluster, settings.catalogue, ["schemas"]))
        items = history(settings.cluster, settings.catalogue, topic or known, since=since, until=until, follow=follow)
        try:
            for item in items:
                if user is None or (isinstance(item, Record) and concerns(item, user)):
                    click.echo(json.dumps(as_members(item), ensure_ascii=False) if as_json else as_line(item))
                    sys.stdout.flush()
        except UnknownSchema as error:
            raise Failed(f"{error}: a newer Tidings has written it; read it with that one") from error


def learn_from_the_log(items: Iterator[Record | Broken]) -> None:
    """Events of versions that this program has not seen are read by the schemas that the log holds."""
    from topics.codec import learn  # noqa: PLC0415
    from topics.events import Record, SchemaPublished  # noqa: PLC0415

    for item in items:
        if isinstance(item, Record) and isinstance(item.event, SchemaPublished):
            learn(item.event.schema)


def concerns(record: Record, user: str) -> bool:
    """Whether the event is by, for or about this user."""
    event = record.event
    named = {getattr(event, name, None) for name in ("user", "recipient_id", "subject", "by")}
    lanes = {lane.value for lane in getattr(event, "lanes", ()) if lane.kind == "recipient"}
    return user in named or user in getattr(event, "users", ()) or user in lanes


def as_members(item: Record | Broken) -> dict[str, Any]:
    """Everything about it, ready for JSON."""
    place = {"topic": item.topic, "partition": item.partition, "offset": item.offset, "at": shown(item.timestamp)}
    if not hasattr(item, "event"):
        return place | {"key": _text(item.key), "event": None, "broken": item.reason, "hex": item.value.hex()}
    event = item.event
    value = _members(event) if event else None
    return place | {"key": item.key, "event": type(event).__name__ if event else None, "value": value}


def as_line(item: Record | Broken) -> str:
    """One line for people: when, where, what, and the fields that tell most."""
    head = f"{shown(item.timestamp)} {item.topic}[{item.partition}]@{item.offset}"
    if not hasattr(item, "event"):
        return f"{head} undecodable ({item.reason}), {len(item.value)} bytes"
    if item.event is None:
        return f"{head} deleted {item.key!r}"
    told = {n: v for n, v in _members(item.event).items() if n not in HIDDEN and v not in (None, "", [], {})}
    words = " ".join(f"{name}={_short(value)}" for name, value in told.items())
    return f"{head} {type(item.event).__name__} {words}"


def _members(event: Event) -> dict[str, Any]:
    erased = getattr(event, "body_key", None) is not None
    return {f.name: "erased" if erased and f.name == "body" else _plain(getattr(event, f.name)) for f in fields(event)}


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return _body(value) if isinstance(value, bytes) else value


def _body(value: bytes) -> Any:
    """Bodies are JSON text; an alert's state is compressed, and shown by its size."""
    try:
        return json.loads(value) if value else None
    except ValueError:
        return f"{len(value)} bytes"


def _text(value: bytes | None) -> str | None:
    return value.decode(errors="replace") if value is not None else None


def _short(value: Any) -> str:
    text = (
        value
        if isinstance(value, str) and value.isprintable() and " " not in value
        else json.dumps(value, ensure_ascii=False)
    )
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
