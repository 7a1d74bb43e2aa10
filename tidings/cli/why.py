"""`tidings why`: the story of one notice, or why somebody was not told, from the log alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidings.cli.failures import Failed, in_one_line
from tidings.cli.log_of import data_option, kafka_settings, read_log

if TYPE_CHECKING:
    from projections.explain import Story
    from topics.read import HistoryReader

MOST = 10  # receivers whose stories are told at once


@click.command()
@click.argument("notice_id")
@click.option("--user", help="The notice as this user has it.  [default: everybody who has it]")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@data_option
def why(notice_id: str, user: str | None, as_json: bool, data: Path) -> None:  # noqa: FBT001 - click's way
    """Tell why NOTICE_ID came, and what became of it: the change, the alert, the config, each decision with its reason,
    each attempt to deliver it with the answer.
    """
    with in_one_line():
        settings = kafka_settings(data)
        from projections.story_json import story_members  # noqa: PLC0415 - loads a Kafka client
        from tidings.cli.story_text import story_lines  # noqa: PLC0415

        stories, left = read_log(settings, lambda reader: stories_of(reader, notice_id, user))
        if not stories:
            raise Failed(f"there is no notice {notice_id}{f' of {user}' if user else ''} on this log")
        if as_json:
            click.echo(json.dumps([story_members(s) for s in stories], ensure_ascii=False))
            return
        for number, story in enumerate(stories):
            click.echo("\n" * bool(number) + "\n".join(story_lines(story)))
        if left:
            click.echo(f"\n{left} more have this notice: name one with --user.")


async def stories_of(reader: HistoryReader, notice_id: str, user: str | None) -> tuple[list[Story], int]:
    """The stories of the first ten receivers, and how many more there are."""
    from projections.explain import story  # noqa: PLC0415 - `--help` is to be quick
    from topics.evidence import evidence_of, receivers_of  # noqa: PLC0415

    receivers = await receivers_of(reader, notice_id, user)
    found = [story(r.user, notice_id, await evidence_of(reader, notice_id, r)) for r in receivers[:MOST]]
    return [s for s in found if s is not None], max(0, len(receivers) - MOST)
