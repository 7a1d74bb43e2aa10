"""What a fold that reads effects before their causes has to take out of the outbox again (rule 3).

Most effects are known as read back by the rows that they made. Two kinds make none: what was refused, and what came
early and is kept; of these the ids are compared.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from projections.sql import outbox
from projections.sql.schema import dead_letters, early
from projections.sql.schema import outbox as outbox_table
from topics.codec import decode


def dead(tx: Connection) -> set[tuple[str, int, int]]:
    """The places that dead letters speak of."""
    d = dead_letters.c
    return {(r.topic, r.partition, r.offset) for r in tx.execute(select(d.topic, d.partition, d.offset))}


def settle(tx: Connection, refused: Sequence[str]) -> None:
    """Take out what was refused (event ids), and what is kept as early."""
    if tx.execute(select(outbox_table.c.event_id).limit(1)).first() is None:
        return
    outbox.drop(tx, refused)
    kept = tx.execute(select(early.c.value)).scalars()
    outbox.drop(tx, [decode(bytes(value)).event_id for value in kept if value])
