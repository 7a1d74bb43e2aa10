"""A user's notices as HTTP reads them: pages, counts, texts by id, what became of their forwards.

Every inbox notice lies in one place (see `PLACE` in the schema), and an index has each place's notices by age. A page
is the newest of its few places, so it costs the same however many notices lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Integer, Select, func, literal_column, or_, select

from projections.delivery import delivery_id
from projections.notice import Notice, Step
from projections.sql.schema import PLACE, delivery_results, marks, notices, preferences, steps, tallies
from projections.sql.views.rows import notice_of, step_of

AT_A_TIME = 500
UNREAD, READ, SNOOZED, ARCHIVED = range(4)
STATES = {
    "open": (UNREAD, READ),
    "all": (UNREAD, READ, SNOOZED, ARCHIVED),
    "unread": (UNREAD,),
    "read": (READ,),
    "archived": (ARCHIVED,),
    "snoozed": (SNOOZED,),
}
_n = notices.c
_place: ColumnElement[int] = literal_column(PLACE, Integer)


class Delivery(NamedTuple):
    """What became of one forward: `outcome` is waiting, sent, failed or cancelled."""

    outcome: str
    reason: str


class Cursor(NamedTuple):
    """Where a page ended: newest first by (raised_offset, notice_id)."""

    raised_offset: int
    notice_id: str


def page(
    tx: Connection, user: str, state: str, *, before: Cursor | None, limit: int, words: str | None
) -> list[Notice]:
    """At most `limit` notices, newest first, older than `before`; `state` a key of STATES, `words` in the text."""
    found: list[Cursor] = []
    for place in STATES[state]:
        query = select(_n.raised_offset, _n.notice_id).where(_n.user_id == user, _place == literal_column(str(place)))
        if before is not None:
            older = or_(_n.raised_offset < before.raised_offset, _n.notice_id < before.notice_id)
            query = query.where(_n.raised_offset <= before.raised_offset, older)
        if words:
            query = query.where(func.lower(_n.body).contains(words.lower(), autoescape=True))
        query = query.order_by(_n.raised_offset.desc(), _n.notice_id.desc()).limit(limit)
        found += [Cursor(*row) for row in tx.execute(query)]
    shown = sorted(found, reverse=True)[:limit]
    rows = {n.notice_id: n for n in by_ids(tx, user, [c.notice_id for c in shown])}
    return [rows[c.notice_id] for c in shown]


def by_ids(tx: Connection, user: str, ids: Sequence[str]) -> list[Notice]:
    """These notices of a user, those that are there."""
    found: list[Notice] = []
    for start in range(0, len(ids), AT_A_TIME):
        found += _with_steps(
            tx, user, select(notices).where(_n.user_id == user, _n.notice_id.in_(ids[start : start + AT_A_TIME]))
        )
    return found


def counts(tx: Connection, user: str) -> dict[str, int]:
    """`unread` and `unseen` of a user, as the fold counts them."""
    row = tx.execute(select(tallies.c.unread, tallies.c.unseen).where(tallies.c.user_id == user)).first()
    return {"unread": row.unread, "unseen": row.unseen} if row else {"unread": 0, "unseen": 0}


def deliveries(tx: Connection, shown: Iterable[Notice]) -> dict[str, Delivery]:
    """Delivery id to what became of it, of all that was delivered of these notices, alone or in a digest."""
    wanted = [
        delivery_id(n, s, s.told) for n in shown for s in n.steps.values() if s.told is not None and s.what != "snooze"
    ]
    found = {i: Delivery("waiting", "") for i in wanted}
    r = delivery_results.c
    for start in range(0, len(wanted), AT_A_TIME):
        query = select(r.delivery_id, r.outcome, r.reason).where(r.delivery_id.in_(wanted[start : start + AT_A_TIME]))
        found |= {row.delivery_id: Delivery(row.outcome, row.reason) for row in tx.execute(query)}
    return found


def mark_offset(tx: Connection, user: str, cmd: str) -> int | None:
    """Where this command was taken, if it was."""
    found = tx.execute(select(marks.c.offset).where(marks.c.user_id == user, marks.c.cmd == cmd)).scalar()
    return None if found is None else int(found)


def preferences_of(tx: Connection, user: str) -> str | None:
    """The JSON text of a user's own preferences."""
    found = tx.execute(select(preferences.c.body).where(preferences.c.user_id == user)).scalar()
    return None if found is None else str(found)


def _with_steps(tx: Connection, user: str, query: Select[Any]) -> list[Notice]:
    rows = tx.execute(query).all()
    waiting: dict[str, dict[str, Step]] = {r.notice_id: {} for r in rows}
    if rows:
        s = steps.c
        for r in tx.execute(select(steps).where(s.user_id == user, s.notice_id.in_(list(waiting)))):
            waiting[r.notice_id][f"{r.what}/{r.step}"] = step_of(r)
    return [notice_of(r, r.body, waiting[r.notice_id]) for r in rows]
