"""One user's share of the fold of `notices`, as the gateway goes on with it: all that says what stands in the inbox,
without texts and forwards.

Rows and position are read in the caller's one transaction. `NO_TEXT` stands for a body that is left in the rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, literal_column, select

from projections.box import Box
from projections.sql.schema import early, marks, notices, preferences, steps
from projections.sql.views.positions import reached
from projections.sql.views.rows import NOTICE, STEP, notice_of, step_of
from topics.catalogue import NOTICES
from topics.codec import decode
from topics.events import Record

NO_TEXT = "{}"
_LEFT = {"body": NO_TEXT, "forward": ""}
_SHARED = (str, int)  # not bool: True is 1


@dataclass(frozen=True, slots=True)
class Inbox:
    """`box`: what stands before offset `next` of the user's partition; `epoch` is "" without a row."""

    box: Box
    next: int
    epoch: str


def load(tx: Connection, user: str, partition: int) -> Inbox:
    """Everything of one user that says what stands in the inbox: no texts, no forwards."""
    at = reached(tx, NOTICES).get(partition)
    box = Box()
    n, s, e = notices.c, steps.c, early.c
    once: dict[Any, Any] = {}  # equal values are one object: of many notices the alerts and entities are few
    columns = [literal_column(f"'{_LEFT[c.name]}'") if c.name in _LEFT else c for c in NOTICE]
    query = select(*columns).where(n.user_id == user, n.inbox.is_(True)).order_by(n.raised_offset)
    for row in tx.execute(query):
        notice = notice_of([once.setdefault(v, v) if type(v) in _SHARED else v for v in row], {})
        notice.version = once.setdefault(notice.version, notice.version)
        box.notices[user, notice.notice_id] = notice
    for notice_id, *step in tx.execute(select(s.notice_id, *STEP).where(s.user_id == user, s.what == "snooze")):
        if (found := box.notices.get((user, notice_id))) is not None:
            box.add_step(found, step_of(step))
    for r in tx.execute(select(marks.c.cmd, marks.c.offset, marks.c.at).where(marks.c.user_id == user)):
        box.commands[user, r.cmd] = (r.offset, r.at)
    for r in tx.execute(select(preferences.c.body).where(preferences.c.user_id == user)):
        box.preferences[user] = r.body
    for r in tx.execute(select(early).where(e.user_id == user).order_by(e.offset)):
        record = Record(NOTICES, r.partition, r.offset, r.at, user, decode(r.value))
        box.early.setdefault((user, r.notice_id), []).append(record)
    return Inbox(box, at.next if at else 0, at.epoch if at else "")
