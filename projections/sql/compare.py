"""Compares the rows that serve with rows that were folded afresh, table by table in the order of their keys.

Nothing is held in memory but one row of each side. What is no word of the log is left out: what a worker has decided
and not read back, and what was read before the log's beginning aged away.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, Connection, String, case, collate, func, select
from sqlalchemy.schema import Table

from projections.sql.schema import (
    THINGS,
    alert_reports,
    crashes,
    entities,
    heads,
    meta,
    metadata,
    notices,
    outbox,
    positions,
    preferences,
    proposals,
    tallies,
    trail,
)
from topics.catalogue import DEAD_LETTERS
from topics.codec import event_name
from topics.fetch import Spot

ANSWERS = ("Decided", "ChangeRefused", "AlertConfigured", "AlertConfigDeleted", "RecipientChanged", "RecipientDeleted")
PIECE = 2_000
MISSING = "no such row"
# Not compared here: where the rows stand, what no record says, and what is decided (heads) or counted (tallies).
APART = (meta, positions, trail, crashes, heads, tallies)
UNEQUAL = {preferences: {"offset"}, proposals: {"value"}, outbox: {"value", "headers"}}  # columns that may differ


@dataclass(frozen=True, slots=True)
class Difference:
    """`log` is what the log says of a row's column, `rows` what stands there."""

    table: str
    key: tuple[Any, ...]
    column: str
    log: Any
    rows: Any


@dataclass(frozen=True, slots=True)
class Limits:
    """What the comparison has to know of the log: its entity types, where a commit is half done, and what aged away."""

    entity_types: tuple[str, ...]
    half_done: Mapping[Spot, int]
    commands_from: int
    reports_from: int


def compared(log: Connection, rows: Connection, limits: Limits) -> Iterator[Difference | int]:
    """Every difference; after each table the number of its rows."""
    for table in metadata.sorted_tables:
        if table in APART:
            continue
        count = 0
        keys = len(table.primary_key.columns)
        for ours, theirs in _pairs(log, rows, table, keys):
            count += theirs is not None
            if ours != theirs and not _expected(table, ours, theirs, limits):
                yield from _told(table, ours, theirs)
        yield count
    yield from _headed(rows)
    yield from _counted(rows)


def _columns(table: Table) -> list[Column[Any]]:
    keys = list(table.primary_key.columns)
    return keys + [c for c in table.columns if c not in set(keys) and c.name not in UNEQUAL.get(table, ())]


def _sorted(tx: Connection, table: Table) -> Iterator[Mapping[str, Any]]:
    postgres = tx.dialect.name == "postgresql"
    keys = [collate(c, "C") if postgres and isinstance(c.type, String) else c for c in table.primary_key.columns]
    columns = _columns(table) + ([table.c.value] if table is outbox else [])
    found = tx.execution_options(yield_per=PIECE).execute(select(*columns).order_by(*keys))
    for row in found:
        yield dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name


def _pairs(
    log: Connection, rows: Connection, table: Table, keys: int
) -> Iterator[tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Rows with the same key, side by side; null where one side has none."""
    left, right = _sorted(log, table), _sorted(rows, table)
    ours, theirs = next(left, None), next(right, None)
    while ours is not None or theirs is not None:
        mine = tuple(ours.values())[:keys] if ours is not None else None
        its = tuple(theirs.values())[:keys] if theirs is not None else None
        if mine == its:
            yield ours, theirs
            ours, theirs = next(left, None), next(right, None)
        elif its is None or (mine is not None and mine < its):
            yield ours, None
            ours = next(left, None)
        else:
            yield None, theirs
            theirs = next(right, None)


def _expected(table: Table, ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None, limits: Limits) -> bool:
    """Whether the rows may differ in this way."""
    if table is proposals and theirs is not None:
        return theirs["offset"] < limits.commands_from if ours is None else _only_decided(ours, theirs)
    if ours is None and theirs is not None:
        if table is outbox:
            spot = Spot(theirs["lane_topic"], theirs["lane_partition"])
            half = limits.half_done.get(spot) == theirs["source_offset"]
            return half or event_name(bytes(theirs["value"])) in ANSWERS
        if table is entities:
            return theirs["entity_type"] not in limits.entity_types
        return table is alert_reports and theirs["at"] < limits.reports_from
    # what a broker refuses for good is a dead letter in the place of the event (outbox.bury)
    return table is outbox and ours is not None and theirs is not None and theirs["topic"] == DEAD_LETTERS


def _only_decided(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """A proposal that the log has not answered may have been decided, and that stands in the outbox."""
    decided = {"outcome", "version"} if ours["outcome"] == "asked" else set()
    return all(ours[name] == theirs[name] for name in ours if name not in decided)


def _told(table: Table, ours: Mapping[str, Any] | None, theirs: Mapping[str, Any] | None) -> Iterator[Difference]:
    there = ours if ours is not None else theirs if theirs is not None else {}
    key = tuple(there[c.name] for c in table.primary_key.columns)
    if ours is None or theirs is None:
        known = {n: v for n, v in there.items() if n != "value" and v is not None}
        words = ", ".join(f"{n}={v}" for n, v in list(known.items())[len(key) :])
        yield Difference(table.name, key, "", words if ours is not None else MISSING, MISSING if ours else words)
        return
    for column in _columns(table):
        if ours[column.name] != theirs[column.name]:
            yield Difference(table.name, key, column.name, ours[column.name], theirs[column.name])


def _headed(rows: Connection) -> Iterator[Difference]:
    """A version that was decided and is beyond the truth waits in the outbox, or was never decided."""
    told = {r.key for r in rows.execute(select(outbox.c.key).where(outbox.c.lane_topic == "commands"))}
    for kind, subject_id in THINGS.items():
        truth = subject_id.table.c.version
        query = (
            select(heads.c.subject_id, heads.c.version, truth.label("truth"))
            .outerjoin_from(heads, subject_id.table, subject_id == heads.c.subject_id)
            .where(heads.c.kind == kind, heads.c.version > func.coalesce(truth, 0))
        )
        for row in rows.execute(query):
            if row.subject_id not in told:
                yield Difference(heads.name, (kind, row.subject_id), "version", row.truth, row.version)


def _counted(rows: Connection) -> Iterator[Difference]:
    """Unread and unseen of each user, counted afresh."""
    n = notices.c
    standing = (n.inbox.is_(True), n.archived_at.is_(None), n.snoozed_until.is_(None))
    fresh = (
        select(
            n.user_id,
            func.sum(case((n.read_at.is_(None), 1), else_=0)).label("unread"),
            func.sum(case((n.seen_at.is_(None), 1), else_=0)).label("unseen"),
        )
        .where(*standing)
        .group_by(n.user_id)
    )
    counted = {r.user_id: (int(r.unread), int(r.unseen)) for r in rows.execute(fresh)}
    kept = {r.user_id: (r.unread, r.unseen) for r in rows.execute(select(tallies))}
    for user in sorted(counted.keys() | kept.keys()):
        pair = zip(("unread", "unseen"), counted.get(user, (0, 0)), kept.get(user, (0, 0)), strict=True)
        yield from (Difference(tallies.name, (user,), what, a, b) for what, a, b in pair if a != b)


def shown(differences: Iterable[Difference]) -> Iterator[str]:
    """In words, one line each."""
    for d in differences:
        key = "/".join(map(str, d.key))
        what = f"{d.column}: " if d.column else ""
        yield f"{d.table} {key}: {what}the log says {_short(d.log)}, the rows say {_short(d.rows)}"


def _short(value: Any) -> str:
    text = "null" if value is None else value.hex() if isinstance(value, bytes) else str(value)
    return text if len(text) <= 200 else f"{text[:199]}…"
