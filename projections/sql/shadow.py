"""A second set of rows beside the live ones: filled while those go on serving, then put in their place at once.

SQLite keeps it in a file of its own, PostgreSQL in a schema. Whatever ends a rebuild before its swap commits leaves the
live rows as they were; the next shadow begins by removing what is left of the last one.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from sqlalchemy import func, insert, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.schema import CreateTable

from projections.sql.schema import (
    crashes,
    delivery_requests,
    delivery_results,
    early,
    entities,
    marks,
    metadata,
    notices,
    outbox,
    preferences,
    steps,
    tallies,
)
from projections.sql.store import Store, prepared, stamped
from projections.sql.swap import FOLDED, SCHEMA

ONE_REBUILD = 7_249_003  # an advisory lock
# Tables in which each partition has rows of its own.
PARTED = (
    notices,
    steps,
    early,
    marks,
    preferences,
    tallies,
    delivery_requests,
    delivery_results,
    entities,
    outbox,
)
# Lost by a crash, all of them: the next run begins anew.
QUICKLY: tuple[str, ...] = (
    "PRAGMA journal_mode=MEMORY",
    "PRAGMA synchronous=OFF",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA cache_size=-32768",
)


class InTheWay(RuntimeError):
    """Another rebuild is at work on this database, or the database can't have one."""


def is_taken(error: BaseException) -> bool:
    """Whether two rows have one key."""
    return isinstance(error, IntegrityError)


def failure_of(error: BaseException) -> str:
    """What the database says of its own trouble, in a line; empty where the error is not the database's."""
    if not isinstance(error, SQLAlchemyError):
        return ""
    return str(getattr(error, "orig", error)).strip().partition("\n")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """How to open the shadow, or a share of it, from another process."""

    url: str
    setup: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shadow:
    """`store` is filled by whoever made it; `live` are the rows that serve, from where the shadow is seen, too."""

    store: Store
    live: Store
    place: Place

    def begin(self) -> str:
        """Empty tables, without the indexes that no fold needs. The generation that they will bring."""
        return bare(self.store)

    def empty(self) -> None:
        """Take everything out again: it is begun anew."""
        with self.store.writing() as tx:
            metadata.drop_all(tx)

    def keep_crashes(self) -> None:
        """What ended a worker three times is passed over here, too (rule 6)."""
        with self.live.writing() as tx:
            prepared(tx)
            rows = [dict(r._mapping) for r in tx.execute(select(crashes))]  # noqa: SLF001 - SQLAlchemy's public name
        with self.store.writing() as tx:
            if rows:
                tx.execute(insert(crashes), rows)

    def share(self, number: int) -> Place:
        """Where another process may fold: a copy of the file as it is now, or the same schema."""
        if self.place.url.startswith("sqlite"):
            file = make_url(self.place.url).database
            shutil.copy(f"{file}", f"{file}.{number}")
            return Place(f"{self.place.url}.{number}", self.place.setup)
        return self.place

    def take_in(self, share: Place) -> None:
        """What was folded there, behind what is here. IntegrityError where both have a row of one key."""
        if share == self.place:
            return
        file = str(make_url(share.url).database)
        merging = Store(self.place.url, (*self.place.setup, f"ATTACH DATABASE '{_quoted(file)}' AS share"))
        try:
            with merging.reading() as tx:
                for table in PARTED:
                    tx.exec_driver_sql(f"INSERT INTO main.{table.name} SELECT * FROM share.{table.name}")  # noqa: S608 - ours
                tx.exec_driver_sql("INSERT OR IGNORE INTO main.trail SELECT * FROM share.trail")
                tx.exec_driver_sql(
                    "REPLACE INTO main.positions SELECT s.* FROM share.positions s "
                    "JOIN main.positions m ON (m.topic, m.partition) = (s.topic, s.partition) WHERE s.next > m.next"
                )
        finally:
            merging.close()

    def complete(self) -> None:
        """The indexes; on PostgreSQL the planner's figures, too."""
        with self.store.writing() as tx:
            for table in FOLDED:
                for index in sorted(table.indexes, key=lambda i: str(i.name)):
                    index.create(tx)
            if tx.dialect.name == "postgresql":
                tx.exec_driver_sql(f"ANALYZE {', '.join(t.name for t in FOLDED)}")


@contextmanager
def beside(url: str) -> Iterator[Shadow]:
    """A shadow of the database at `url`, removed at the end. InTheWay, the database's errors."""
    with _file_beside(url) if url.startswith("sqlite") else _schema_beside(url) as (place, live):
        store = Store(place.url, place.setup)
        try:
            yield Shadow(store, live, place)
        finally:
            store.close()
            live.close()


def scratch(file: Path) -> Store:
    """A store for one run of one process; quick, and lost with it."""
    return Store(f"sqlite:///{file}", QUICKLY)


def bare(store: Store) -> str:
    """Make the tables of an empty `store` without their indexes; its generation."""
    with store.writing() as tx:
        for table in metadata.sorted_tables:
            tx.execute(CreateTable(table))
        return stamped(tx)


@contextmanager
def _file_beside(url: str) -> Iterator[tuple[Place, Store]]:
    database = make_url(url).database
    if not database or database == ":memory:":
        raise InTheWay("a database in memory is its process's own: it can't be rebuilt from outside")
    file = Path(f"{database}.rebuild")
    with Path(f"{file}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InTheWay("another rebuild of this database is at work: wait for its end") from None
        _remove(file)
        try:
            yield (
                Place(f"sqlite:///{file}", QUICKLY),
                Store(url, (f"ATTACH DATABASE '{_quoted(str(file))}' AS shadow",)),
            )
        finally:
            _remove(file)


@contextmanager
def _schema_beside(url: str) -> Iterator[tuple[Place, Store]]:
    keeper = Store(url)
    try:
        with keeper.reading() as tx:  # the lock is the connection's, which stays open until `keeper` is closed
            if not tx.execute(select(func.pg_try_advisory_lock(ONE_REBUILD))).scalar():
                raise InTheWay("another rebuild of this database is at work: wait for its end")
        _drop_schema(keeper)
        with keeper.writing() as tx:
            tx.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
        try:
            yield Place(url, (f"SET search_path TO {SCHEMA}", "SET synchronous_commit TO off")), Store(url)
        finally:
            _drop_schema(keeper)
            with keeper.reading() as tx:  # or the server would hold it for a moment after the connection was closed
                tx.execute(select(func.pg_advisory_unlock(ONE_REBUILD)))
    finally:
        keeper.close()


def _drop_schema(store: Store) -> None:
    with store.writing() as tx:
        tx.exec_driver_sql(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")


def _remove(file: Path) -> None:
    """The shadow, its shares and what belongs to them; the lock stays."""
    for old in file.parent.glob(f"{escape(file.name)}*"):
        if old.suffix != ".lock":
            old.unlink(missing_ok=True)


def _quoted(name: str) -> str:
    return name.replace("'", "''")
