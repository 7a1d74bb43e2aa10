"""The horizon's clock: ours, or the broker's where that is ahead, so that its records need not wait for our time to
come. Never goes back.
"""

from __future__ import annotations

import time


class Clock:
    """Milliseconds since 1970 UTC."""

    def __init__(self) -> None:
        self._ahead = 0
        self._last = 0

    def now(self) -> int:
        """The time; never less than before."""
        self._last = max(self._last, time.time_ns() // 1_000_000 + self._ahead)
        return self._last

    def saw(self, timestamp: int) -> None:
        """A record bears this time of the broker's clock."""
        self._ahead = max(self._ahead, timestamp - time.time_ns() // 1_000_000)
