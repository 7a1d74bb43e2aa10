"""What the oracle remembers of a notice and of what the log asked about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from topics.events import Decided, NoticeRaised

Key = tuple[str, str]  # a user and a notice
QuestionKey = tuple[str, str, str, str, int]  # user, notice, what, step, number


@dataclass(slots=True)
class Lane:
    """Something that waits, by (what, step): its `number`, when it is due, and how it stands."""

    what: str
    step: str
    channel: str
    person: bool
    due_at: int
    number: int = 0
    state: str = "waiting"
    asked_at: int = 0
    told: list[str] = field(default_factory=list)  # the decisions that had it delivered by itself
    carried: list[str] = field(default_factory=list)  # those on digests that delivered it
    held_in: str = ""
    silenced: bool = False


@dataclass(slots=True)
class Told:
    """One user's notice as the log tells it; of a digest `raised` is null."""

    key: Key
    raised: NoticeRaised | None
    offset: int
    at: int
    plan: dict[str, Any]
    config: str = ""
    severity: str = "info"
    seen: bool = False
    read: bool = False
    archived: bool = False
    snoozed: int | None = None
    hold: int = 0
    ended: int | None = None
    stopped: int | None = None  # the offset of what stopped it
    version: tuple[int, int] = (-1, -1)
    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """A question of the log, what stood before it, and the first answer on the log (null: none)."""

    key: QuestionKey
    told: Told
    lane: Lane
    offset: int
    at: int
    preferences: dict[str, Any]
    severity: str
    recently: tuple[int, ...]  # when what was delivered before, in this throttle's scope, was due
    gathered: tuple[str, ...]


@dataclass(slots=True)
class Answer:
    """The first answer to a question, and the others that came after it."""

    event: Decided
    offset: int
    timestamp: int
    others: list[Decided] = field(default_factory=list)


def wish_of(preferences: dict[str, Any], alert: str | None, channel: str) -> dict[str, Any]:
    """What somebody wants of a channel for an alert: `enabled`, `after`, `digest` where anything was said."""
    mine = preferences.get("alerts", {}).get(alert or "", {}).get(channel, {})
    all_ = preferences.get("channels", {}).get(channel, {})
    found: dict[str, Any] = {}
    for wish in (all_, mine):
        said = {"enabled": wish} if isinstance(wish, bool) else wish
        found |= {k: v for k, v in said.items() if v is not None}
    if any(w is False or (isinstance(w, dict) and w.get("enabled") is False) for w in (mine, all_)):
        found["enabled"] = False
    return found
