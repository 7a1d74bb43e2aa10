"""What a step delivered, now and before: a repeat and a digest deliver many times.

Each delivery counts for the throttle, is recalled while it waits, and makes whoever got it one who was told.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from projections.notice import Step
from projections.policy import Policy

KEPT = 20  # always; beyond that only what may still be sent, or is counted
KEPT_MS = 24 * 3_600_000  # a delivery's deadline


class Told(NamedTuple):
    """A delivery: the number that asked for it, the digest that carried it, when it was due (null in a digest)."""

    number: int
    held_in: str
    at: int | None


def tellings(step: Step) -> list[Told]:
    """All that are known, the newest last."""
    now = [] if step.told is None else [Told(step.told, step.held_in, None if step.held_in else step.told_at)]
    return [*earlier_in(step.earlier), *now]


def earlier_in(text: str) -> list[Told]:
    """What `Step.earlier` says."""
    return [Told(*t) for t in json.loads(text)] if text else []


def told_times(told: int | None, held_in: str, told_at: int | None, earlier: str) -> list[int]:
    """When a step delivered by itself."""
    now = [] if told is None or held_in or told_at is None else [told_at]
    return [*(t.at for t in earlier_in(earlier) if t.at is not None), *now]


def retire(step: Step, policy: Policy, at: int) -> None:
    """Something else is to be told next: what was told is remembered as earlier."""
    if step.told is None:
        return
    known, throttle = tellings(step), policy.throttle
    most, since = (throttle.most, at - throttle.per_ms) if throttle else (0, at)
    step.earlier = _text([t for i, t in enumerate(known) if _counts(t, len(known) - i, most, since, at)])
    step.told = None


def _counts(told: Told, age: int, most: int, since: int, at: int) -> bool:
    return age <= KEPT or (told.at is not None and (told.at > at - KEPT_MS or (age <= most and told.at > since)))


def _text(known: Sequence[Told]) -> str:
    return json.dumps(known, separators=(",", ":"))
