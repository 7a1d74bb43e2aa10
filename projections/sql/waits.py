"""What waits for a time: found by an index, for the clock (rule 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from projections.notice import Step
from projections.sql.schema import steps


@dataclass(frozen=True, slots=True)
class Wait:
    """One waiting step of one notice."""

    user: str
    notice_id: str
    step: Step


def due(tx: Connection, partitions: Sequence[int], until: int, limit: int) -> list[Wait]:
    """What waits on these partitions of `notices` with `due_at` <= until (ms), oldest first."""
    s = steps.c
    found = tx.execute(
        select(s.user_id, s.notice_id, s.what, s.step, s.channel, s.kind, s.value, s.number, s.due_at)
        .where(s.partition.in_(partitions), s.state == "waiting", s.due_at <= until)
        .order_by(s.due_at)
        .limit(limit)
    )
    return [
        Wait(r.user_id, r.notice_id, Step(r.what, r.step, r.channel, r.kind, r.value, r.due_at, number=r.number))
        for r in found
    ]


def next_due(tx: Connection, partitions: Sequence[int]) -> int | None:
    """The earliest time at which something is due (ms)."""
    s = steps.c
    return tx.execute(select(func.min(s.due_at)).where(s.partition.in_(partitions), s.state == "waiting")).scalar()
