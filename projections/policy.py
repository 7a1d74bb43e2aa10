"""What a config's `forward` and a person's preferences say about forwards, read from their JSON texts.

Both were checked where they entered. Whatever another producer wrote that has no meaning says nothing here: a fold must
be able to read every text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from projections.quiet_hours import Window, window_of
from topics.durations import milliseconds
from topics.json_text import parse

READ_TEXTS = 4_096
SHORT = 4_096  # characters: only such texts are kept as read, so that nobody can fill the memory with long ones


@dataclass(frozen=True, slots=True)
class Throttle:
    """At most `most` messages in any span of `per_ms`."""

    most: int
    per_ms: int


@dataclass(frozen=True, slots=True)
class Policy:
    """How a config forwards, apart from its lanes. `override`: severities that pass opt-outs and quiet hours."""

    digest_ms: int = 0
    throttle: Throttle | None = None
    repeat_ms: int = 0
    override: frozenset[str] = frozenset()
    tell_resolved: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person wants of one channel: null where nothing was said."""

    enabled: bool | None = None
    after_ms: int | None = None
    digest_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Preferences:
    """A person's wishes by (alert, channel) and by channel, quiet hours, and the time zone that they are meant in."""

    alerts: dict[tuple[str, str], Wish] = field(default_factory=dict)
    channels: dict[str, Wish] = field(default_factory=dict)
    quiet: tuple[Window, ...] = ()
    time_zone: str = ""

    def wish(self, alert: str | None, channel: str) -> Wish:
        """What holds for one alert on one channel: the alert's own word first, but either may switch it off."""
        if not self.alerts and not self.channels:
            return _ANYTHING
        mine, all_ = self.alerts.get((alert or "", channel), _NONE), self.channels.get(channel, _NONE)
        return Wish(
            enabled=not (mine.enabled is False or all_.enabled is False),
            after_ms=all_.after_ms if mine.after_ms is None else mine.after_ms,
            digest_ms=all_.digest_ms if mine.digest_ms is None else mine.digest_ms,
        )


_NONE, _ANYTHING = Wish(), Wish(enabled=True)


def policy_of(text: str) -> Policy:
    """The policy in NoticeRaised's `forward`; empty text is none."""
    return _policy(text) if len(text) <= SHORT else _policy.__wrapped__(text)


def preferences_of(text: str) -> Preferences:
    """The preferences in a text; empty text says nothing."""
    return _preferences(text) if len(text) <= SHORT else _preferences.__wrapped__(text)


@lru_cache(READ_TEXTS)
def _policy(text: str) -> Policy:
    said = read_object(text)
    throttle = _object(said.get("throttle"))
    most, per_ms = throttle.get("max"), _duration(throttle.get("per"))
    return Policy(
        digest_ms=_duration(said.get("digest")) or 0,
        throttle=Throttle(most, per_ms) if type(most) is int and most > 0 and per_ms else None,
        repeat_ms=_duration(said.get("repeat")) or 0,
        override=frozenset(s for s in _list(said.get("override")) if isinstance(s, str)),
        tell_resolved=said.get("tell_resolved") is True,
    )


@lru_cache(READ_TEXTS)
def _preferences(text: str) -> Preferences:
    said = read_object(text)
    zone = said.get("time_zone")
    return Preferences(
        alerts={
            (alert, channel): _wish(value)
            for alert, channels in _object(said.get("alerts")).items()
            for channel, value in _object(channels).items()
        },
        channels={channel: _wish(value) for channel, value in _object(said.get("channels")).items()},
        quiet=tuple(w for q in _list(said.get("quiet")) if (w := window_of(q))),
        time_zone=zone if isinstance(zone, str) else "",
    )


def read_object(text: str) -> dict[str, Any]:
    """A JSON object's members; none for anything else."""
    try:
        return _object(parse(text)) if text else {}
    except ValueError:
        return {}


def _wish(value: Any) -> Wish:
    if isinstance(value, bool):
        return Wish(enabled=value)
    said = _object(value)
    enabled = said.get("enabled")
    return Wish(
        enabled=enabled if isinstance(enabled, bool) else None,
        after_ms=_duration(said.get("after")),
        digest_ms=_duration(said.get("digest")),
    )


def _duration(value: Any) -> int | None:
    if value is None:
        return None
    try:
        return milliseconds(value)
    except (ValueError, OverflowError):
        return None


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
