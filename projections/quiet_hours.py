"""Quiet hours in a person's time zone: whether a moment lies in them, and when they end, in UTC.

A window begins on one of its days at the wall clock's `from` and ends at the next `to`; where the clock is set forward
or back, both are what Python's zoneinfo makes of them, so the window is an hour shorter or longer that night.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_clock = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")
EVERY_DAY = frozenset(range(1, 8))
LONGEST_CHAIN = 32


@dataclass(frozen=True, slots=True)
class Window:
    """On each of `days` (1 Monday to 7) from `start` to the next `end`; equal times are a whole day."""

    days: frozenset[int]
    start: time
    end: time


def window_of(value: Any) -> Window | None:
    """A window as people write it: {"days": [1, 5], "from": "22:00", "to": "07:00"}; null if it is none."""
    if not isinstance(value, dict):
        return None
    start, end, days = _time(value.get("from")), _time(value.get("to")), value.get("days")
    if start is None or end is None:
        return None
    if not isinstance(days, list):
        return Window(EVERY_DAY, start, end)
    return Window(frozenset(d for d in days if type(d) is int and d in EVERY_DAY), start, end)


def zone_of(*names: Any) -> ZoneInfo:
    """The first of these names that is a time zone; UTC if none is."""
    for name in names:
        if isinstance(name, str) and name:
            try:
                return ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError):
                continue
    return ZoneInfo("UTC")


def quiet_until(windows: tuple[Window, ...], zone: ZoneInfo, at: int) -> int | None:
    """When it is no longer quiet (ms), if it is quiet at `at` (ms): windows that touch are one.

    Windows without a gap, as for a whole week, end after LONGEST_CHAIN of them: a message late is better than never.
    """
    end = at
    for _ in range(LONGEST_CHAIN):
        later = max((e for w in windows if (e := _end(w, zone, end)) is not None), default=None)
        if later is None:
            break
        end = later
    return end if end > at else None


def _end(window: Window, zone: ZoneInfo, at: int) -> int | None:
    """The end of the window's occurrence that `at` lies in."""
    today = datetime.fromtimestamp(at / 1000, UTC).astimezone(zone).date()
    over_midnight = timedelta(days=window.end <= window.start)
    for day in (today - timedelta(days=1), today):
        if day.isoweekday() not in window.days:
            continue
        start = _utc_ms(datetime.combine(day, window.start, zone))
        end = _utc_ms(datetime.combine(day + over_midnight, window.end, zone))
        if start <= at < end:
            return end
    return None


def _utc_ms(local: datetime) -> int:
    return int(local.astimezone(UTC).timestamp() * 1000)


def _time(text: Any) -> time | None:
    found = _clock.fullmatch(text) if isinstance(text, str) else None
    return time(int(found[1]), int(found[2])) if found else None
