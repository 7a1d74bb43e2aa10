"""Silences as people list them, those that end last first."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, and_, func, or_, select

from projections.sql.schema import silences

_s = silences.c


class Silence(NamedTuple):
    """One that was not ended; what is null matches everything. `until` and `at`, when it was set, in ms."""

    id: str
    by: str
    alert: str | None
    entity_type: str | None
    entity_id: str | None
    user: str | None
    until: int
    body: str
    at: int


class After(NamedTuple):
    """Where a page ended."""

    until: int
    id: str


_COLUMNS = (_s.silence_id, _s.by, _s.alert, _s.entity_type, _s.entity_id, _s.user_id, _s.until, _s.body, _s.at)


def one(tx: Connection, silence_id: str) -> Silence | None:
    """The silence, if it was set and not ended; its time may be over."""
    row = tx.execute(select(*_COLUMNS).where(_s.silence_id == silence_id)).first()
    return Silence(*row) if row else None


def page(tx: Connection, user: str | None, since: int, after: After | None, limit: int) -> list[Silence]:
    """At most `limit` that end later than `since` (ms); with `user` only those that concern this person."""
    query = select(*_COLUMNS).where(_s.until > since)
    if user is not None:
        query = query.where(or_(_s.user_id == user, _s.user_id.is_(None)))
    if after is not None:
        same = and_(_s.until == after.until, _s.silence_id < after.id)
        query = query.where(_s.until <= after.until, or_(_s.until < after.until, same))
    return [Silence(*r) for r in tx.execute(query.order_by(_s.until.desc(), _s.silence_id.desc()).limit(limit))]


def count(tx: Connection, by: str, since: int) -> int:
    """How many set by one person end later than `since` (ms)."""
    query = select(func.count()).select_from(silences)
    return int(tx.execute(query.where(_s.until > since, _s.by == by)).scalar() or 0)
