"""A user's notices as HTTP reads them: pages, counts, texts by id, what became of their forwards.

Every inbox notice lies in one place (see `PLACE` in the schema), and an index has each place's notices by age. A page
is the newest of its few places, so it costs the same however many notices lie elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, Integer, Select, bindparam, func, literal_column, or_, select, union_all

from projections.delivery import delivery_id
from projections.notice import STATES, Notice, Step
from projections.sql.rows import NOTICE, STEP, notice_of, step_of
from projections.sql.schema import PLACE, delivery_results, marks, notices, preferences, steps, tallies

AT_A_TIME = 500
LAST = 2**63 - 1
_n = notices.c


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
    given: dict[str, Any] = {"user": user, "limit": limit, "before": LAST, "before_id": ""}
    if before is not None:
        given |= {"before": before.raised_offset, "before_id": before.notice_id}
    if words:
        given["words"] = "%" + re.sub(r"([%_!])", r"!\1", words.lower()) + "%"
    return _with_steps(tx, user, tx.execute(_page(state, searched=bool(words)), given).all())


def by_ids(tx: Connection, user: str, ids: Sequence[str]) -> list[Notice]:
    """These notices of a user, those that are there."""
    found: list[Notice] = []
    for start in range(0, len(ids), AT_A_TIME):
        rows = tx.execute(_BY_IDS, {"user": user, "ids": ids[start : start + AT_A_TIME]}).all()
        found += _with_steps(tx, user, rows)
    return found


def counts(tx: Connection, user: str) -> dict[str, int]:
    """`unread` and `unseen` of a user, as the fold counts them."""
    row = tx.execute(_COUNTS, {"user": user}).first()
    return {"unread": row.unread, "unseen": row.unseen} if row else {"unread": 0, "unseen": 0}


def deliveries(tx: Connection, shown: Iterable[Notice]) -> dict[str, Delivery]:
    """Delivery id to what became of it, of all that was delivered of these notices, alone or in a digest."""
    wanted = [
        delivery_id(n, s, s.told) for n in shown for s in n.steps.values() if s.told is not None and s.what != "snooze"
    ]
    found = {i: Delivery("waiting", "") for i in wanted}
    for start in range(0, len(wanted), AT_A_TIME):
        rows = tx.execute(_RESULTS, {"ids": wanted[start : start + AT_A_TIME]})
        found |= {row.delivery_id: Delivery(row.outcome, row.reason) for row in rows}
    return found


def mark_offset(tx: Connection, user: str, cmd: str) -> int | None:
    """Where this command was taken, if it was."""
    found = tx.execute(select(marks.c.offset).where(marks.c.user_id == user, marks.c.cmd == cmd)).scalar()
    return None if found is None else int(found)


def preferences_of(tx: Connection, user: str) -> str | None:
    """The JSON text of a user's own preferences."""
    found = tx.execute(select(preferences.c.body).where(preferences.c.user_id == user)).scalar()
    return None if found is None else str(found)


def _with_steps(tx: Connection, user: str, rows: Sequence[Any]) -> list[Notice]:
    waiting: dict[str, dict[str, Step]] = {r.notice_id: {} for r in rows}
    for notice_id, *row in tx.execute(_STEPS, {"user": user, "ids": list(waiting)}) if rows else ():
        step = step_of(row)
        waiting[notice_id][f"{step.what}/{step.step}"] = step
    return [notice_of(r, waiting[r.notice_id]) for r in rows]


@cache
def _page(state: str, *, searched: bool) -> Select[Any]:
    """The newest of each place are looked up in the index alone, then the newest of them all are fetched."""
    before: Any = bindparam("before")
    newest_first = (_n.raised_offset.desc(), _n.notice_id.desc())
    places = []
    for place in STATES[state]:
        here = select(_n.raised_offset, _n.notice_id).where(
            _n.user_id == bindparam("user"),
            literal_column(PLACE, Integer) == literal_column(str(place)),
            _n.raised_offset <= before,
            or_(_n.raised_offset < before, _n.notice_id < bindparam("before_id")),
        )
        if searched:
            here = here.where(func.lower(_n.body).like(bindparam("words"), escape="!"))
        places.append(select(here.order_by(*newest_first).limit(bindparam("limit")).subquery()))
    found = union_all(*places).subquery()
    newest = select(found).order_by(found.c.raised_offset.desc(), found.c.notice_id.desc()).limit(bindparam("limit"))
    keys = newest.subquery()
    mine = (_n.user_id == bindparam("user")) & (_n.notice_id == keys.c.notice_id)
    return select(*NOTICE).select_from(keys.join(notices, mine)).order_by(*newest_first)


_IDS: Any = bindparam("ids", expanding=True)
_BY_IDS = select(*NOTICE).where(_n.user_id == bindparam("user"), _n.notice_id.in_(_IDS))
_STEPS = select(steps.c.notice_id, *STEP).where(steps.c.user_id == bindparam("user"), steps.c.notice_id.in_(_IDS))
_COUNTS = select(tallies.c.unread, tallies.c.unseen).where(tallies.c.user_id == bindparam("user"))
_RESULTS = select(delivery_results.c.delivery_id, delivery_results.c.outcome, delivery_results.c.reason).where(
    delivery_results.c.delivery_id.in_(_IDS)
)
