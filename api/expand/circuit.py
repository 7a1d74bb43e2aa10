"""When to stop asking a backend that fails, and when to try again. Pure: the caller says what time it is."""

from __future__ import annotations

FAILURES = 5  # in a row
REST_S = 10.0


class Circuit:
    """Closed until FAILURES in a row; then open, and one probe is let through every REST_S; any success closes it."""

    def __init__(self) -> None:
        self._failures = 0
        self._probe_at = 0.0

    @property
    def open(self) -> bool:
        """Whether all but the probes are refused."""
        return self._failures >= FAILURES

    def admits(self, now: float) -> bool:
        """Whether a request may be made at `now` (monotonic seconds). A probe that never reports costs one REST_S."""
        if not self.open:
            return True
        if now < self._probe_at:
            return False
        self._probe_at = now + REST_S
        return True

    def succeeded(self) -> None:
        """The backend has answered like one that works."""
        self._failures = 0

    def failed(self, now: float) -> bool:
        """It has not; whether that opened the circuit."""
        self._failures += 1
        if self.open:
            self._probe_at = now + REST_S
        return self._failures == FAILURES
