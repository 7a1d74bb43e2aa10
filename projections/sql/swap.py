"""The swap: rows that were rebuilt take the place of those that serve, in one transaction behind every fence.

Readers see the old rows or the new ones, never both, and are not held up (SQLite), or for a moment (PostgreSQL). What
belongs to no read model stays: the sender's leases, and what ended a worker (crashes).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, false, func, select, update
from sqlalchemy.schema import Table

from projections.sql.positions import Position
from projections.sql.schema import (
    alert_configs,
    alert_reports,
    crashes,
    delivery_requests,
    delivery_results,
    entities,
    meta,
    metadata,
    positions,
    recipients,
    revocations,
    silences,
)
from projections.sql.store import Store, prepared
from topics.catalogue import ALERT_CONFIGS, ALERT_REPORTS, CONTROLS, DELIVERIES, RECIPIENTS
from topics.fetch import Spot

SCHEMA = "tidings_rebuild"  # PostgreSQL's place for the rows to come; SQLite attaches them as `shadow`
FOLDED = [t for t in metadata.sorted_tables if t is not crashes]  # a crash is no word of the log: never replaced
# What may be rebuilt alone: folds that only write down what the log says, so that nothing waits to be said for them.
ALONE: dict[str, list[Table]] = {
    ALERT_CONFIGS: [alert_configs],
    RECIPIENTS: [recipients],
    CONTROLS: [silences, revocations],
    ALERT_REPORTS: [alert_reports],
    "entities": [entities],
    DELIVERIES: [delivery_requests, delivery_results],
}


@dataclass(frozen=True, slots=True)
class Fence:
    """The live rows stand still: nobody moves a position while this is held. `at`: where they are."""

    tx: Connection
    at: dict[Spot, Position]
    stamp: int

    def replace(self, tables: Sequence[Table]) -> None:
        """Put these tables of the shadow in the place of the live ones, as a new generation."""
        (_move if self.tx.dialect.name == "postgresql" else _copy)(self.tx, tables)
        if meta not in tables:
            self.tx.execute(update(meta).values(generation=str(uuid.uuid4())))


@contextmanager
def fenced(live: Store) -> Iterator[Fence]:
    """Hold all positions of the live rows; commits at the end. NewerRows, the database's errors."""
    lite = live.url.startswith("sqlite")
    # BEGIN IMMEDIATE would take the shadow's lock, too, which its own writer needs: the first statement takes ours.
    with live.reading() if lite else live.writing() as tx:
        if lite:
            tx.execute(update(positions).where(false()).values(done=0))
        stamp = prepared(tx)
        rows = tx.execute(select(positions).order_by(positions.c.topic, positions.c.partition).with_for_update())
        at = {Spot(r.topic, r.partition): Position(r.next, r.done, r.half_id, r.epoch) for r in rows}
        yield Fence(tx, at, stamp)


def _copy(tx: Connection, tables: Sequence[Table]) -> None:
    """SQLite: from the attached file. Into new tables of the same shape it copies whole trees, indexes included."""
    for table in tables:
        table.drop(tx, checkfirst=True)
        table.create(tx)
        tx.exec_driver_sql(f'INSERT INTO main."{table.name}" SELECT * FROM shadow."{table.name}"')  # noqa: S608 - ours


def _move(tx: Connection, tables: Sequence[Table]) -> None:
    """PostgreSQL: the tables change places.

    All are locked first, so that no snapshot sees one table of the old rows and another one of the new.
    """
    schema = tx.execute(select(func.current_schema())).scalar()
    tx.exec_driver_sql(f"LOCK TABLE {', '.join(sorted(t.name for t in FOLDED))} IN ACCESS EXCLUSIVE MODE")
    for table in tables:
        table.drop(tx)
        tx.exec_driver_sql(f'ALTER TABLE {SCHEMA}.{table.name} SET SCHEMA "{schema}"')
