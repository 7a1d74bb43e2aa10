"""Users' shares of the fold of `notices`, as the gateway goes on with them: all that says what stands in the inboxes,
without texts and forwards.

Rows and position are read in the caller's one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, select

from projections.box import Box
from projections.sql.rows import NO_TEXT, STEP, early_of, notice_columns, notice_of, step_of
from projections.sql.schema import early, marks, notices, preferences, steps
from projections.sql.views.positions import Reached, reached
from topics.catalogue import NOTICES

_SHARED = (str, int)  # not bool: True is 1


@dataclass(frozen=True, slots=True)
class Inbox:
    """`box`: what stands before offset `next` of the user's partition; `epoch` is "" without a row."""

    box: Box
    next: int
    epoch: str


def load(tx: Connection, users: Mapping[str, int]) -> dict[str, Inbox]:
    """Everything of these users (and their partitions) that says what stands in the inboxes: no texts, no forwards."""
    at, boxes = reached(tx, NOTICES), {user: Box() for user in users}
    n, s, e = notices.c, steps.c, early.c
    once: dict[Any, Any] = {}  # equal values are one object: of many notices the alerts and entities are few
    columns = notice_columns(body=NO_TEXT, forward="")
    query = select(*columns).where(n.user_id.in_(users), n.inbox.is_(True)).order_by(n.user_id, n.raised_offset)
    for row in tx.execute(query):
        notice = notice_of([once.setdefault(v, v) if type(v) in _SHARED else v for v in row], {})
        notice.version = once.setdefault(notice.version, notice.version)
        boxes[notice.user].notices[notice.user, notice.notice_id] = notice
    snoozed = select(s.user_id, s.notice_id, *STEP).where(s.user_id.in_(users), s.what == "snooze")
    for user, notice_id, *step in tx.execute(snoozed):
        if (found := boxes[user].notices.get((user, notice_id))) is not None:
            boxes[user].add_step(found, step_of(step))
    m, p = marks.c, preferences.c
    for r in tx.execute(select(m.user_id, m.cmd, m.offset, m.at).where(m.user_id.in_(users))):
        boxes[r.user_id].commands[r.user_id, r.cmd] = (r.offset, r.at)
    for user, body in tx.execute(select(p.user_id, p.body).where(p.user_id.in_(users))):
        boxes[user].preferences[user] = body
    for r in tx.execute(select(early).where(e.user_id.in_(users)).order_by(e.offset)):
        boxes[r.user_id].early.setdefault((r.user_id, r.notice_id), []).append(early_of(r))
    none = Reached(0, "")
    return {user: Inbox(boxes[user], *at.get(partition, none)) for user, partition in users.items()}
