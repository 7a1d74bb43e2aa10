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
    from tidings.inquiry import Findings
    from topics.read import HistoryReader

MOST = 10  # receivers whose stories are told at once


@click.command()
@click.argument("notice_id", required=False)
@click.option("--user", help="The notice as this user has it.  [default: everybody who has it]")
@click.option(
    "--request",
    help="With --user: why they were not told of it. An Idempotency-Key, a notice's or an event's id, or "
    "TOPIC[PARTITION]@OFFSET as `replay` shows it.",
)
@click.option("--subject", default="cli", show_default=True, help="With --request: whose Idempotency-Key it is.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@data_option
def why(
    notice_id: str | None,
    user: str | None,
    request: str | None,
    subject: str,
    as_json: bool,  # noqa: FBT001 - click's way
    data: Path,
) -> None:
    """Tell why NOTICE_ID came, and what became of it: the change, the alert, the config, each decision with its reason,
    each attempt to deliver it with the answer.

    With --user and --request instead: why that user did not get it, or got it in the inbox and nowhere else.
    """
    if (notice_id is None) == (request is None) or (request is not None and user is None):
        raise click.UsageError("Give either a NOTICE_ID, or --user and --request.")
    with in_one_line():
        settings = kafka_settings(data)
        if request is not None and user is not None:
            from tidings.inquiry import inquire  # noqa: PLC0415 - loads a Kafka client

            _tell_untold(
                read_log(settings, lambda r: inquire(r, user, request, subject)), user, request, as_json=as_json
            )
        else:
            stories, left = read_log(settings, lambda r: stories_of(r, notice_id or "", user))
            if not stories:
                raise Failed(f"there is no notice {notice_id}{f' of {user}' if user else ''} on this log")
            _tell(stories, left, as_json=as_json)


def _tell(stories: list[Story], left: int, *, as_json: bool) -> None:
    from projections.story_json import story_members  # noqa: PLC0415
    from tidings.cli.story_text import story_lines  # noqa: PLC0415

    if as_json:
        click.echo(json.dumps([story_members(s) for s in stories], ensure_ascii=False))
        return
    for number, story in enumerate(stories):
        click.echo("\n" * bool(number) + "\n".join(story_lines(story)))
    if left:
        click.echo(f"\n{left} more have this notice: name one with --user.")


def _tell_untold(found: Findings, user: str, request: str, *, as_json: bool) -> None:
    from projections.story_json import story_members, verdict_members  # noqa: PLC0415
    from tidings.cli.story_text import untold_lines  # noqa: PLC0415
    from topics.record_json import as_members  # noqa: PLC0415

    if found.nowhere:
        raise Failed(
            f"nothing on this log is called {request}. A request without a `key` goes straight to the notices of its "
            "people: name its sender with --subject"
        )
    if not as_json:
        click.echo("\n".join(untold_lines(found, user, request)))
        return
    members = {
        "user": user,
        "request": request,
        "about": as_members(found.about) if found.about else None,
        "verdicts": [verdict_members(v) for v in found.verdicts],
        "dead_letters": found.dead,
        "not_folded_yet": found.unfolded,
        "sent_straight_to": found.told,
        "stories": [story_members(s) for s in found.stories],
    }
    click.echo(json.dumps(members, ensure_ascii=False))


async def stories_of(reader: HistoryReader, notice_id: str, user: str | None) -> tuple[list[Story], int]:
    """The stories of the first ten receivers, and how many more there are."""
    from projections.explain import story  # noqa: PLC0415 - `--help` is to be quick
    from topics.evidence import evidence_of, receivers_of  # noqa: PLC0415

    receivers = await receivers_of(reader, notice_id, user)
    found = [story(r.user, notice_id, await evidence_of(reader, notice_id, r)) for r in receivers[:MOST]]
    return [s for s in found if s is not None], max(0, len(receivers) - MOST)
