"""What an attempt's result means: sent, tried again later, or given up. Pure: no clock, no dice.

Back-off doubles up to an hour; its jitter comes from the delivery's id, so that every sender would say the same.
Nothing is tried after the deadline, and what could only be tried after it is given up at once.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from sender.channels.channel import Rejected, Result, RetryLater, Sent

CAP_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class Again:
    """Not before `next_at` (ms)."""

    next_at: int
    answer: str


Verdict = Sent | Again | Rejected


def verdict(
    result: Result, *, delivery_id: str, attempt: int, now: int, deadline_at: int, first_retry_ms: int
) -> Verdict:
    """What follows from the result of attempt number `attempt` (from 1) at `now` (ms)."""
    if not isinstance(result, RetryLater):
        return result
    next_at = now + pause_ms(delivery_id, attempt, first_retry_ms)
    return Again(next_at, result.answer) if next_at < deadline_at else Rejected(result.answer, "too_late")


def pause_ms(delivery_id: str, attempt: int, first_retry_ms: int) -> int:
    """Between half and all of first * 2^(attempt-1), at most an hour."""
    full = min(CAP_MS, first_retry_ms << min(attempt - 1, 30))
    digest = hashlib.sha256(f"{delivery_id}:{attempt}".encode()).digest()
    return int(full // 2 + full * int.from_bytes(digest[:4], "big") // 2**33)
