"""A user's notices as HTTP reads them: pages, counts, texts by id, what became of their forwards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, Select, and_, func, or_, select

from projections.notice import Notice, Step
from projections.sql.schema import delivery_requests, delivery_results, marks, notices, preferences, steps
from projections.sql.views.rows import notice_of, step_of

AT_A_TIME = 500
_n = notices.c
_open = and_(_n.inbox.is_(True), _n.archived_at.is_(None), _n.snoozed_until.is_(None))
STATES = {
    "open": _open,
    "all": _n.inbox.is_(True),
    "unread": and_(_open, _n.read_at.is_(None)),
    "read": and_(_open, _n.read_at.is_not(None)),
    "archived": and_(_n.inbox.is_(True), _n.archived_at.is_not(None)),
    "snoozed": and_(_n.inbox.is_(True), _n.archived_at.is_(None), _n.snoozed_until.is_not(None)),
}


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
    query = select(notices).where(_n.user_id == user, STATES[state])
    if before is not None:
        same = and_(_n.raised_offset == before.raised_offset, _n.notice_id < before.notice_id)
        query = query.where(or_(_n.raised_offset < before.raised_offset, same))
    if words:
        query = query.where(func.lower(_n.body).contains(words.lower(), autoescape=True))
    return _with_steps(tx, user, query.order_by(_n.raised_offset.desc(), _n.notice_id.desc()).limit(limit))


def by_ids(tx: Connection, user: str, ids: Sequence[str]) -> list[Notice]:
    """These notices of a user, those that are there."""
    found: list[Notice] = []
    for start in range(0, len(ids), AT_A_TIME):
        found += _with_steps(
            tx, user, select(notices).where(_n.user_id == user, _n.notice_id.in_(ids[start : start + AT_A_TIME]))
        )
    return found


def counts(tx: Connection, user: str) -> dict[str, int]:
    """`unread` and `unseen` of a user."""
    mine = select(func.count()).select_from(notices).where(_n.user_id == user, _open)
    unread = tx.execute(mine.where(_n.read_at.is_(None))).scalar()
    unseen = tx.execute(mine.where(_n.seen_at.is_(None))).scalar()
    return {"unread": int(unread or 0), "unseen": int(unseen or 0)}


def deliveries(tx: Connection, user: str, ids: Iterable[str]) -> dict[tuple[str, str], Delivery]:
    """(notice id, step) to what became of its newest delivery."""
    d, r, wanted = delivery_requests.c, delivery_results.c, list(ids)
    found: dict[tuple[str, str], Delivery] = {}
    for start in range(0, len(wanted), AT_A_TIME):
        query = (
            select(d.notice_id, d.step, r.outcome, r.reason)
            .select_from(delivery_requests.outerjoin(delivery_results, d.delivery_id == r.delivery_id))
            .where(d.user_id == user, d.notice_id.in_(wanted[start : start + AT_A_TIME]))
            .order_by(d.offset)
        )
        found.update(
            ((row.notice_id, row.step), Delivery(row.outcome or "waiting", row.reason or ""))
            for row in tx.execute(query)
        )
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
