"""Durations as people write them: seconds, or `90s`, `5m`, `1h30m`, `2d`."""

from __future__ import annotations

import re

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_part = re.compile(r"(\d{1,9})(ms|s|m|h|d)")
_whole = re.compile(r"(?:\d{1,9}(?:ms|s|m|h|d))+")
LONGEST_MS = 90 * 86_400_000


def milliseconds(given: object) -> int:
    """A duration in ms. ValueError, worded for people."""
    if isinstance(given, int | float) and not isinstance(given, bool):
        found = round(given * 1000) if abs(given) < LONGEST_MS else -1
    elif isinstance(given, str) and _whole.fullmatch(given):
        found = sum(int(number) * _UNITS[unit] for number, unit in _part.findall(given))
    else:
        raise ValueError("a duration is a number of seconds or a text like 5m or 1h30m")
    if not 0 <= found <= LONGEST_MS:
        raise ValueError("a duration lies between 0 and 90 days")
    return found
