"""`tidings emit`: changes of entities from the shell, straight to the log."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidings.cli.failures import Failed, Wrong, in_one_line
from tidings.cli.log_of import data_option, kafka_settings

if TYPE_CHECKING:
    from tidings.cli.entity_lines import Change
    from tidings.settings import KafkaSettings
    from topics.produce import Placed

AT_ONCE = 500


@click.command()
@click.argument("entity_type", metavar="TYPE")
@click.argument("entity_id", metavar="[ID]", required=False)
@click.option("--op", type=click.Choice(["created", "updated", "deleted"]), default="updated", show_default=True)
@click.option("--version", type=click.IntRange(0), help="The entity's own version.  [default: its offset on the log]")
@click.option("--at", help="When it changed: RFC 3339.")
@click.option("--ndjson", is_flag=True, help='stdin has one change a line: {"id","op","body","version"?,"at"?}')
@data_option
def emit(
    entity_type: str,
    entity_id: str | None,
    op: str,
    version: int | None,
    at: str | None,
    ndjson: bool,  # noqa: FBT001
    data: Path,
) -> None:
    """Say that an entity changed. Its whole body is read from stdin, as a JSON object.

    With --ndjson many changes are read, one a line; a line that is wrong is named on stderr, the others are
    emitted, and the exit code is 1.
    """
    if ndjson == (entity_id is not None):
        raise click.UsageError("Give either an ID, or --ndjson.")
    with in_one_line():
        settings = kafka_settings(data)
        if entity_type not in settings.entity_types:
            raise Wrong(
                f"{entity_type!r} is no entity type here: TIDINGS_ENTITY_TYPES has {', '.join(settings.entity_types)}"
            )
        if ndjson:
            refused: list[int] = []
            placed = asyncio.run(_send(settings, entity_type, _lines(refused)))
            click.echo(f"{len(placed)} changes emitted" + (f", {len(refused)} lines refused" if refused else ""))
            if refused:
                raise Failed(f"lines refused: {', '.join(map(str, refused[:20]))}{', …' if len(refused) > 20 else ''}")
            return
        from tidings.cli.entity_lines import BadChange, change  # noqa: PLC0415 - `--help` is to be quick

        try:
            one = change(entity_id or "", op, None if op == "deleted" else _stdin(), version, at)
        except BadChange as error:
            raise Wrong(str(error)) from error
        for at_ in asyncio.run(_send(settings, entity_type, [one])):
            click.echo(f"{at_.topic}[{at_.partition}]@{at_.offset}")


def _stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise Wrong(f"stdin is not UTF-8 at byte {error.start}") from error


def _lines(refused: list[int]) -> Iterator[Change]:
    """The good lines; the others are named at once."""
    from tidings.cli.entity_lines import BadChange, of_line  # noqa: PLC0415

    for number, line in enumerate(sys.stdin.buffer, 1):
        if not line.strip():
            continue
        try:
            yield of_line(line.decode())
        except (BadChange, UnicodeDecodeError) as error:
            refused.append(number)
            click.echo(f"tidings: line {number}: {error}", err=True)


async def _send(settings: KafkaSettings, entity_type: str, changes: Iterable[Change]) -> list[Placed]:
    """In order, at most 500 on their way at once. NotOnTheLog, KafkaError."""
    from topics.catalogue import entity_topic  # noqa: PLC0415
    from topics.events import EntityChanged  # noqa: PLC0415
    from topics.ids import new_id  # noqa: PLC0415
    from topics.produce import Producer, now_us  # noqa: PLC0415

    producer, placed, sent = Producer(settings.cluster, settings.catalogue, "emit"), [], []
    await producer.start()
    try:
        for change in changes:
            event = EntityChanged(
                event_id=new_id(),
                producer=producer.name,
                occurred_at=now_us(),
                entity_type=entity_type,
                entity_id=change.id,
                op=change.op,
                version=change.version,
                at=change.at,
                body=change.body.encode() if change.body is not None else None,
            )
            sent.append(await producer.enqueue(entity_topic(entity_type), change.id, event))
            if len(sent) >= AT_ONCE:
                placed += await asyncio.wait_for(asyncio.gather(*sent), 60)
                sent.clear()
        placed += await asyncio.wait_for(asyncio.gather(*sent), 60)
    except TimeoutError as error:
        raise Failed("Kafka did not acknowledge within 60 s: is it full, or away?") from error
    finally:
        await producer.stop()
    return placed
