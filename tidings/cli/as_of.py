"""`tidings as-of`: somebody's inbox as it was, from the log alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidings.cli.failures import in_one_line
from tidings.cli.log_of import data_option, kafka_settings, read_log
from tidings.cli.times import Time, shown

if TYPE_CHECKING:
    from projections.history import Past
    from topics.read import HistoryReader

STATES = ("open", "all", "unread", "read", "archived", "snoozed")
SHOWN = 1_000


@click.command("as-of")
@click.argument("at", metavar="T", type=Time())
@click.option("--user", required=True, help="Whose inbox.")
@click.option("--state", type=click.Choice(STATES), default="open", show_default=True, help="Which notices of it.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, all of it.")
@data_option
def as_of(at: int, user: str, state: str, as_json: bool, data: Path) -> None:  # noqa: FBT001 - click's way
    """Show a user's inbox as it was at T (RFC 3339, or how long ago: 2h), by the log's time: what was there, what the
    user had done with it, what had been forwarded and with which outcome.
    """
    with in_one_line():
        settings = kafka_settings(data)
        past = read_log(settings, lambda reader: _past(reader, user, at))
        if as_json:
            click.echo(_as_json(past, user, at, state))
        else:
            for line in _lines(past, user, at, state):
                click.echo(line)


async def _past(reader: HistoryReader, user: str, at: int) -> Past:
    from projections.history import TOPICS, Past  # noqa: PLC0415 - `--help` is to be quick

    past = Past()
    for topic in TOPICS:
        async for record in reader.of_key(topic, user, until=at + 1):
            past.take(record)
    return past


def _as_json(past: Past, user: str, at: int, state: str) -> str:
    from api.notices.notice_json import notice_text  # noqa: PLC0415

    deliveries, found = past.deliveries, past.page(state, before=None, limit=2**31)
    items = ",".join(notice_text(n, n.body, deliveries) for n in found)
    head = json.dumps({"user": user, "as_of": shown(at), "counts": past.counts}, ensure_ascii=False)
    return f'{head[:-1]}, "items": [{items}]}}'


def _lines(past: Past, user: str, at: int, state: str) -> Iterator[str]:
    from api.notices.notice_json import notice_text  # noqa: PLC0415

    counts, deliveries = past.counts, past.deliveries
    yield f"{user} at {shown(at)}: {counts['unread']} unread, {counts['unseen']} unseen"
    found = past.page(state, before=None, limit=SHOWN + 1)
    for notice in found[:SHOWN]:
        told = json.loads(notice_text(notice, notice.body, deliveries))
        done = [name.removesuffix("_at") for name, when in told["state"].items() if when]
        marks = ", ".join([*(done or ["unread"]), *(["over"] if notice.ended_at else [])])
        yield f"{shown(notice.raised_at)}  {notice.severity:8}  {told['title']}  ({marks})"
        yield f"    {notice.notice_id}"
        for forward in told["forwards"]:
            why = f": {forward['reason']}" if forward["reason"] else ""
            yield f"    {forward['what']} by {forward['channel']}, due {forward['due_at']}: {forward['outcome']}{why}"
    if len(found) > SHOWN:
        yield f"and more: --json shows all of them ({state})"
