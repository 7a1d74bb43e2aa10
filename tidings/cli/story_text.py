"""A story as people read it in a terminal: a headline, then what happened, by day and time, each with its place on the
log and the little that explains it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from projections.explain import Story
from projections.narration import Moment
from projections.outcomes import outcomes
from projections.words import clock
from tidings.inquiry import Findings

WIDTH = 96
INDENT = " " * 16
NAMED = 8  # receivers that are named


def story_lines(story: Story) -> Iterator[str]:
    """The lines of one story."""
    yield click.style(story.title, bold=True)
    what = f"condition {story.key}" if story.key else story.kind
    about = [what, story.severity, f"alert {story.alert}" if story.alert else "", f"for {story.user}"]
    if story.entity:
        about.insert(1, "/".join(story.entity))
    yield f"  {story.notice_id} · {' · '.join(a for a in about if a)}"
    day = ""
    there = {moment.event_id for moment in story.moments}
    for moment in story.moments:
        at = datetime.fromtimestamp(moment.at / 1000, UTC)
        if day != (day := f"{at:%A, %-d %B %Y} (UTC)"):
            yield ""
            yield day
        place = click.style(f"{moment.topic}[{moment.partition}]@{moment.offset}", dim=True)
        yield f"  {at:%H:%M:%S}.{at.microsecond // 1000:03d}  {moment.told}  {place}"
        yield from (f"{INDENT}{line}" for line in _details(moment, there))
    yield ""
    yield from _end(story)


def untold_lines(found: Findings, user: str, request: str) -> Iterator[str]:
    """Why somebody was not told, or what became of it where they were."""
    if found.about is not None:
        event = type(found.about.event).__name__
        yield f"{request} is {event} of {clock(found.about.timestamp)}"
    for verdict in found.verdicts:
        place = click.style(f"notice-requests[{verdict.partition}]@{verdict.offset}", dim=True)
        yield f"{clock(verdict.at)}  {verdict.told}  {place}"
    yield from (f"{place} is a dead letter: {why}" for place, why in found.dead.items())
    if found.told and not found.stories:
        named = ", ".join(found.told[:NAMED]) + (" and others" if len(found.told) > NAMED else "")
        yield f"It was sent straight to {named}; {user} is not among those it was sent to."
    for notice_id in found.unfolded:
        yield f"{user} is to have notice {notice_id}, but it is not on the log yet: does a worker run?"
    if found.about is not None and not (found.verdicts or found.stories or found.told):
        yield "No commit of an alert and no request on the log names it as its cause: no alert said anything of it."
    for story in found.stories:
        yield ""
        yield f"{user} has it:"
        yield from story_lines(story)
        if not outcomes(story):
            yield f"     nothing was to be forwarded: {user} is named for the inbox only"


def _end(story: Story) -> Iterator[str]:
    state = [
        f"{name.removesuffix('_at')} {clock(at)}" for name, at in story.state.items() if at and name != "raised_at"
    ]
    yield f"Now: {', '.join(state) or 'neither seen nor read'}"
    waiting = {waits["step"] for waits in story.waits if waits["what"] == "forward"}
    yield from (f"     by {step}: {how}" for step, how in outcomes(story).items() if step not in waiting)
    for waits in story.waits:
        when = f"due {clock(waits['due_at'])}" if waits["state"] != "asked" else "being decided"
        what = "" if waits["what"] == "forward" else f"{waits['what']} "
        yield f"     {what}by {waits['step']}: {when}" if waits["step"] else f"     {waits['what']}: {when}"


def _details(moment: Moment, there: set[str]) -> Iterator[str]:
    """What explains a moment; what stands in the story as a moment of its own is not shown twice."""
    details = moment.details
    config, entity = details.get("config"), details.get("entity")
    if moment.event in ("AlertConfigured", "EntityChanged"):
        yield from _json((config or entity or {}).get("value"))
    if config and moment.event == "AlertCommitted":
        version = f", version {config['version']}" if config.get("version") is not None else ""
        yield f"for config {config['id']}{version}"
        yield from _json(config.get("value") if config.get("event_id") not in there else None)
    if entity and moment.event == "AlertCommitted":
        version = f", version {entity['version']}" if entity.get("version") is not None else ""
        yield f"about {entity['type']} {entity['id']}{version}"
        yield from _json(entity.get("value") if entity.get("event_id") not in there else None)
    if "receivers" in details:
        told = [r["user"] for r in details["receivers"]]
        more = f" and {len(told) - NAMED} more" if len(told) > NAMED else ""
        yield f"to {', '.join(told[:NAMED])}{more}"
    for lane in details.get("lanes", ()):
        yield f"{lane['channel']} because it names the {lane['kind']} {lane['value']}"
    if isinstance(looked := details.get("looked_at"), dict):
        shown = {name: value for name, value in looked.items() if value not in (None, "", {}, [])}
        yield from (f"looked at {name}: {_short(value)}" for name, value in shown.items() if name != "asked_at")
    if "digest" in details:
        yield f"digest {details['digest']}"


def _json(value: Any) -> Iterator[str]:
    if value is not None:
        yield f"  {_short(value)}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"
