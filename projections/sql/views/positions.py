"""How far the rows have come on the log, and of which log they are (rule 7): what a read's `position` and
`at_least` are made of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection, exists, select

from projections.sql.schema import outbox, positions


class Reached(NamedTuple):
    """`next`: the offset that the rows have not folded yet; `epoch`: the id of the partition's TopicOpened."""

    next: int
    epoch: str


def reached(tx: Connection, topic: str) -> dict[int, Reached]:
    """Partition to position; a partition without a row has not been begun."""
    found = tx.execute(
        select(positions.c.partition, positions.c.next, positions.c.epoch).where(positions.c.topic == topic)
    )
    return {r.partition: Reached(r.next, r.epoch) for r in found}


def holds(tx: Connection, topic: str, wanted: Mapping[int, int], *, answers: bool) -> bool:
    """Whether the rows hold all before these offsets and, with `answers`, what was said because of it too."""
    known = reached(tx, topic)
    if any(p not in known or known[p].next < n for p, n in wanted.items()):
        return False
    for p, n in wanted.items() if answers else ():
        waiting = select(
            exists().where(outbox.c.lane_topic == topic, outbox.c.lane_partition == p, outbox.c.source_offset < n)
        )
        if tx.execute(waiting).scalar():
            return False
    return True
