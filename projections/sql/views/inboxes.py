"""One user's share of the fold of `notices`, as the gateway goes on with it: all that `apply` looks at, without the
texts.

Rows and position are read in the caller's one transaction. `NO_TEXT` stands for a body that is left in the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, select

from projections.box import Box
from projections.sql.schema import early, marks, notices, preferences, steps
from projections.sql.views.positions import reached
from projections.sql.views.rows import notice_of, step_of
from topics.catalogue import NOTICES
from topics.codec import decode
from topics.events import Record

NO_TEXT = "{}"


@dataclass(frozen=True, slots=True)
class Inbox:
    """`box`: what stands before offset `next` of the user's partition; `epoch` is "" without a row."""

    box: Box
    next: int
    epoch: str


def load(tx: Connection, user: str, partition: int) -> Inbox:
    """Everything of one user."""
    at = reached(tx, NOTICES).get(partition)
    box = Box()
    n, s, e = notices.c, steps.c, early.c
    for r in tx.execute(
        select(*[c for c in notices.columns if c.name != "body"]).where(n.user_id == user).order_by(n.raised_offset)
    ):
        box.notices[user, r.notice_id] = notice_of(r, NO_TEXT, {})
    for r in tx.execute(select(steps).where(s.user_id == user)):
        notice = box.notices.get((user, r.notice_id))
        if notice is not None:
            box.add_step(notice, step_of(r))
    for r in tx.execute(select(marks.c.cmd, marks.c.offset, marks.c.at).where(marks.c.user_id == user)):
        box.commands[user, r.cmd] = (r.offset, r.at)
    for r in tx.execute(select(preferences.c.body).where(preferences.c.user_id == user)):
        box.preferences[user] = r.body
    for r in tx.execute(select(early).where(e.user_id == user).order_by(e.offset)):
        record = Record(NOTICES, r.partition, r.offset, r.at, user, decode(r.value))
        box.early.setdefault((user, r.notice_id), []).append(record)
    return Inbox(box, at.next if at else 0, at.epoch if at else "")
