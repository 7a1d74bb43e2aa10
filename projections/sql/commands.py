"""Commands of users are known again for 30 days of log time (rule 9); what is older takes no room."""

from __future__ import annotations

from sqlalchemy import Connection, delete, func, select, tuple_

from projections.notices import REMEMBERED_MS
from projections.sql.schema import marks
from topics.catalogue import DAY_MS
from topics.fetch import Spot

AT_ONCE = 10_000


def forget_commands(tx: Connection, spot: Spot, most: int = AT_ONCE) -> int:
    """Delete the oldest of what the fold of this partition of `notices` would take anew; how many, at most `most`.

    Counted from the newest command of the partition, since the fold compares times of the log with each other, never
    with a clock; and a day late, since the broker's clock may be set back.
    """
    m = marks.c
    newest = tx.execute(select(func.max(m.at)).where(m.partition == spot.partition)).scalar()
    if newest is None:
        return 0
    old = (
        select(m.user_id, m.cmd)
        .where(m.partition == spot.partition, m.at <= newest - REMEMBERED_MS - DAY_MS)
        .order_by(m.at)
        .limit(most)
    )
    return tx.execute(delete(marks).where(tuple_(m.user_id, m.cmd).in_(old))).rowcount
