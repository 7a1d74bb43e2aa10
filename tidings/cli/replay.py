"""`tidings replay`: reads history from the log, in the order of the log's time, as text or as JSON lines."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidings.cli.failures import Wrong, in_one_line
from tidings.cli.log_of import data_option, kafka_settings, read_log
from tidings.cli.times import Time, shown

if TYPE_CHECKING:
    from topics.fetch import Item
    from topics.read import HistoryReader
    from topics.selection import Selection

HIDDEN = frozenset({"event_id", "producer", "occurred_at", "caused_by", "body_key"})
WIDTH = 160


@click.command()
@click.option("--topic", multiple=True, help="Only this topic; may be repeated.  [default: all]")
@click.option("--user", help="Only what concerns this user.")
@click.option("--entity", metavar="TYPE/ID", help="Only what tells of this entity.")
@click.option("--since", type=Time(), help="From this time on: RFC 3339, or how long ago (5m).")
@click.option("--until", type=Time(), help="Before this time.")
@click.option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line, complete.")
@data_option
def replay(
    topic: tuple[str, ...],
    user: str | None,
    entity: str | None,
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
        from topics.record_json import as_members  # noqa: PLC0415 - loads a Kafka client
        from topics.selection import EntityName, Selection  # noqa: PLC0415

        kind, slash, name = (entity or "").partition("/")
        if entity is not None and not (kind and slash and name):
            raise Wrong("--entity names a type and an id: vm/17")
        wanted = Selection(topic or tuple(known), user, EntityName(kind, name) if entity is not None else None)

        async def show(reader: HistoryReader) -> None:
            async for item in _wanted(reader, wanted, since=since, until=until, follow=follow):
                click.echo(json.dumps(as_members(item), ensure_ascii=False) if as_json else as_line(item))
                sys.stdout.flush()

        read_log(settings, show)


async def _wanted(reader: HistoryReader, wanted: Selection, **times: Any) -> Any:
    async for _, message in reader.merged(wanted.spots(reader), **times):
        if wanted.maybe(message) and wanted.holds(item := await reader.item(message)):
            yield item


def as_line(item: Item) -> str:
    """One line for people: when, where, what, and the fields that tell most."""
    from topics.dead_letters import DeadLetter  # noqa: PLC0415
    from topics.fetch import Broken  # noqa: PLC0415
    from topics.record_json import event_members  # noqa: PLC0415

    head = f"{shown(item.timestamp)} {item.topic}[{item.partition}]@{item.offset}"
    if isinstance(item, Broken):
        return f"{head} undecodable ({item.reason}), {len(item.value)} bytes"
    if isinstance(item, DeadLetter):
        return f"{head} dead letter of {item.source_topic}[{item.source_partition}]@{item.source_offset}: {item.reason}"
    if item.event is None:
        return f"{head} deleted {item.key!r}"
    told = {n: v for n, v in event_members(item.event).items() if n not in HIDDEN and v not in (None, "", [], {})}
    words = " ".join(f"{name}={_short(value)}" for name, value in told.items())
    return f"{head} {type(item.event).__name__} {words}"


def _short(value: Any) -> str:
    text = (
        value
        if isinstance(value, str) and value.isprintable() and " " not in value
        else json.dumps(value, ensure_ascii=False)
    )
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
