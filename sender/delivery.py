"""A delivery as it stands in the queue, and the lease that a sender holds on it.

A lease is given by the database's time; its holder measures it from before it asked, by a clock that goes on while the
machine sleeps, so that it never believes in a lease that another could have taken over.
"""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Delivery:
    """One DeliveryRequested; times in ms of the log. `body` is its JSON text."""

    delivery_id: str
    user: str
    notice_id: str
    partition: int
    offset: int
    channel: str
    message_id: str
    deadline_at: int
    requested_at: int
    body: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A delivery with a lease on it until `good_until` (see `clock_s`).

    `attempts` were read from the results. `inherited`: somebody had a lease before and did not give it back, so that
    its result may be on the log without being folded. `accepted`: attempt and answer of an acceptance that was noted
    there but may not be on the log.
    """

    delivery: Delivery
    attempts: int
    good_until: float
    inherited: bool
    accepted: tuple[int, str] | None


def clock_s() -> float:
    """Seconds by a clock that never goes back and counts suspended time, where the system has one."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
