"""When a role that has ended is started again: a pure rule, apart from the processes.

"Please restart me" (exit 3) is followed at once; whatever ends again and again is given more time, up to ten seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

AT_ONCE = 3  # the exit code of a role that wants to begin again
FIRST_S, LONGEST_S = 0.5, 10.0
STEADY_S = 30.0  # whoever lived that long has a clean record


@dataclass(frozen=True, slots=True)
class Record:
    """How often a role ended before it was steady."""

    ends: int = 0

    def after(self, code: int, lived_s: float) -> tuple[Record, float]:
        """The record after an end, and the seconds until the next start."""
        ends = 1 if lived_s >= STEADY_S else self.ends + 1
        if code == AT_ONCE and ends == 1:
            return Record(ends), 0.0
        return Record(ends), min(LONGEST_S, FIRST_S * 2 ** (ends - 1))
