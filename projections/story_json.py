"""A story as JSON, with times as people and programs read them; the same from the command line and over HTTP."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from projections.explain import Story
from projections.narration import Moment
from projections.outcomes import outcomes
from projections.untold import Verdict
from topics.catalogue import NOTICE_REQUESTS
from topics.record_json import rfc3339

_TIMES = frozenset({"until", "due_at", "deadline_at", "next_at", "asked_at"})


def story_members(story: Story) -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "id": story.notice_id,
        "user": story.user,
        "title": story.title,
        "kind": story.kind,
        "severity": story.severity,
        "alert": story.alert,
        "config": story.config_id,
        "key": story.key,
        "entity": {"type": story.entity[0], "id": story.entity[1]} if story.entity else None,
        "state": timed(story.state, every=True),
        "outcomes": outcomes(story),
        "waits": [timed(w) for w in story.waits],
        "moments": [moment_members(m) for m in story.moments],
    }


def moment_members(moment: Moment) -> dict[str, Any]:
    """One moment: when, where it stands on the log, what happened."""
    return _members(moment) | {"at": rfc3339(moment.at), "details": timed(moment.details)}


def verdict_members(verdict: Verdict) -> dict[str, Any]:
    """What one request or commit was to a user."""
    return _members(verdict) | {"at": rfc3339(verdict.at), "topic": NOTICE_REQUESTS, "audience": list(verdict.audience)}


def timed(values: dict[str, Any], *, every: bool = False) -> dict[str, Any]:
    """Members that are times (ms) as RFC 3339; `every` member is one."""
    return {
        name: rfc3339(value) if (every or name in _TIMES) and isinstance(value, int)
        else timed(value) if name == "looked_at" and isinstance(value, dict)
        else value
        for name, value in values.items()
    }  # fmt: skip


def _members(told: Moment | Verdict) -> dict[str, Any]:
    return {f.name: getattr(told, f.name) for f in fields(told)}
