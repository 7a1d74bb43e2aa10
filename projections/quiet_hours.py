"""Quiet hours in a person's time zone: whether a moment lies in them, and when they end, in UTC.

It is quiet while the clock on the wall shows a time within a window, so a night is an hour shorter or longer where the
clock is set forward or back, and what lies in an hour that is left out is never.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_clock = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")
EVERY_DAY = frozenset(range(1, 8))
LOOKED_AHEAD = timedelta(days=8)
_day, _ms = timedelta(days=1), timedelta(milliseconds=1)
_epoch = datetime(1970, 1, 1, tzinfo=UTC)


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

    Where it is always quiet, that is after LOOKED_AHEAD: then the question is asked again.
    """
    moment = begun = _epoch + at * _ms
    while moment < begun + LOOKED_AHEAD:
        local = moment.astimezone(zone)
        left = max((rest for w in windows if (rest := _left(w, local.replace(tzinfo=None)))), default=None)
        if left is None:
            break
        moment = _after(moment, left, zone)
    return (moment - _epoch) // _ms if moment > begun else None


def _left(window: Window, local: datetime) -> timedelta | None:
    """How long the clock has to go on until the end of the window that it is in."""
    midnight = datetime.combine(local.date(), time())
    for day in (midnight, midnight - _day):
        if day.isoweekday() in window.days:
            start, end = datetime.combine(day, window.start), datetime.combine(day, window.end)
            end += _day if end <= start else timedelta()
            if start <= local < end:
                return end - local
    return None


def _after(moment: datetime, left: timedelta, zone: ZoneInfo) -> datetime:
    """The moment `left` later, or when the clock is set on the way: what it shows then is another question."""
    offset, low, high = moment.astimezone(zone).utcoffset(), moment, moment + left
    if high.astimezone(zone).utcoffset() == offset:
        return high
    while high - low > _ms:
        middle = low + (high - low) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=high.microsecond // 1000 * 1000)


def _time(text: Any) -> time | None:
    found = _clock.fullmatch(text) if isinstance(text, str) else None
    return time(int(found[1]), int(found[2])) if found else None
