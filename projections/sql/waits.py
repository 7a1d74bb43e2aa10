"""What waits for a time: found by an index, for the clock (rule 4).

One partition at a time: only so does the index give what is oldest without all the rest being sorted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, select

from projections.notice import Step
from projections.sql.schema import steps

_S = steps.c
_WAITING = (_S.partition == bindparam("at_partition"), _S.state == "waiting")
_DUE = (
    select(_S.user_id, _S.notice_id, _S.what, _S.step, _S.channel, _S.kind, _S.value, _S.number, _S.due_at)
    .where(*_WAITING, _S.due_at <= bindparam("until"))
    .order_by(_S.due_at)
    .limit(bindparam("most"))
)
_NEXT = select(_S.due_at).where(*_WAITING, _S.due_at > bindparam("after")).order_by(_S.due_at).limit(1)


@dataclass(frozen=True, slots=True)
class Wait:
    """One waiting step of one notice."""

    user: str
    notice_id: str
    step: Step


def due(tx: Connection, partitions: Sequence[int], until: int, most: int) -> list[Wait]:
    """What waits on these partitions of `notices` with `due_at` <= until (ms); of each the `most` oldest."""
    return [
        Wait(r.user_id, r.notice_id, Step(r.what, r.step, r.channel, r.kind, r.value, r.due_at, number=r.number))
        for partition in partitions
        for r in tx.execute(_DUE, {"at_partition": partition, "until": until, "most": most})
    ]


def next_due(tx: Connection, partitions: Sequence[int], after: int) -> int | None:
    """The earliest time (ms) behind `after` at which something is due."""
    found = [tx.execute(_NEXT, {"at_partition": partition, "after": after}).scalar() for partition in partitions]
    return min((at for at in found if at is not None), default=None)
