"""Reasons, times and bodies as people read them. What can't be read any more, because its key is gone, is "erased"."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from projections.policy import read_object

ERASED = "erased"
REASONS = {
    "unread": "it was unread",
    "opt_out": "its receiver does not want it there",
    "no_address": "no address is known",
    "silenced": "a silence held",
    "quiet_hours": "quiet hours",
    "throttle": "as many as allowed were sent already",
    "digest": "collected with others",
    "resolved": "its receiver had been told of it",
    "delay": "its receiver wants it later",
    "read": "it was read",
    "archived": "it was archived",
    "ended": "the condition was over",
    "stopped": "it was read, archived or over meanwhile",
    "empty": "nothing of it was left to say",
    "not_told": "nobody had been told",
    "delivery_pending": "the message before was still under way",
    "too_late": "its deadline was over",
    "rejected": "the other side will never take it",
    "no_channel": "there is no such channel here",
}


def reason(word: str) -> str:
    """A decision's reason for people."""
    return REASONS.get(word, word)


def clock(at: int | None) -> str:
    """A time in ms for people, in UTC; nothing for none."""
    return "" if at is None else f"{datetime.fromtimestamp(min(max(at, 0), 253_402_300_799_000) / 1000, UTC):%F %T} UTC"


def said(event: Any) -> Any:
    """What a body says, as an object; `erased` where its key is gone."""
    return ERASED if event.body_key is not None else read_object((event.body or b"").decode(errors="replace"))


def delay(after_ms: int) -> str:
    """How long a notice may stay unread."""
    if not after_ms:
        return "at once"
    seconds = after_ms / 1000
    size, unit = next(((n, u) for n, u in ((3600, "h"), (60, "min")) if seconds >= n and seconds % n == 0), (1, "s"))
    return f"if unread after {seconds / size:g} {unit}"
