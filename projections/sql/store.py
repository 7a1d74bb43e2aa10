"""One SQL database with the read models: SQLite in WAL mode, or PostgreSQL by URL.

Readers get one REPEATABLE READ snapshot a transaction, so that rows and the position they hold for belong together.
Writers take the write lock with their first statement.
"""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, bindparam, create_engine, event, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool
from sqlalchemy.sql.schema import Table

from projections.sql.schema import STAMP, meta, metadata, positions

BUSY_MS = 5_000
TABLES = 7_249_001  # an advisory lock: who makes the tables
PRAGMAS = (
    "journal_mode=WAL",
    "synchronous=NORMAL",
    f"busy_timeout={BUSY_MS}",
    "cache_size=-16000",
    "wal_autocheckpoint=4000",  # pages: a checkpoint waits for the disk, and on a backlog each page is changed often
)
sqlite3.register_adapter(bool, int)  # else each value is asked at length what it would like to be


class NewerRows(RuntimeError):
    """The rows were written by a newer Tidings: this process has to end (an upgrade is under way)."""


def is_away(error: BaseException) -> bool:
    """Whether `error` says that the database is locked or away, so that waiting and trying again is right.

    PostgreSQL's SQLSTATE tells: connection (08), rollback (40), resources (53), operator (57), lock time-out (55P03);
    and tables that no worker has made yet (42P01), which SQLite, too, tells as an OperationalError.
    """
    if not isinstance(error, DBAPIError):
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in {"08", "40", "53", "57"} or state in {"55P03", "42P01"}
    return isinstance(error, OperationalError) or error.connection_invalidated


def is_too_much(error: BaseException) -> bool:
    """Whether `error` says that no row can hold such a value, today or ever (SQLSTATE 22, data; 54, limits)."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return isinstance(error, DataError) or state[:2] in {"22", "54"}


class Store:
    """Opens the database and makes its tables. `url` is SQLAlchemy's; each connection first executes `setup`."""

    def __init__(self, url: str, setup: Sequence[str] = ()) -> None:
        self.url = url
        self._writer = _engine(url, setup, write=True)
        self._reader = _engine(url, setup, write=False)
        self._file = self._identity()

    def prepare(self) -> str:
        """Make the tables, wipe rows of an older stamp; the generation of the rows.

        NewerRows, SQLAlchemy's OperationalError.
        """
        with self.writing() as tx:
            stamp = prepared(tx)
            self._file = self._identity()
            return generation(tx)[1] if stamp == STAMP else wipe(tx)

    def replaced(self) -> bool:
        """Whether SQLite's file is no longer the one that was opened: what is written would be seen by nobody."""
        return self._file != self._identity()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes; commits at the end, rolls back on any exception."""
        with self._writer.begin() as tx:
            yield tx

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A REPEATABLE READ snapshot."""
        with self._reader.begin() as tx:
            yield tx

    def _identity(self) -> tuple[int, int]:
        path = self._writer.url.database
        if self._writer.dialect.name != "sqlite" or not path or not Path(path).exists():
            return 0, 0
        found = Path(path).stat()
        return found.st_dev, found.st_ino

    def close(self) -> None:
        """Give the connections back to the system."""
        self._writer.dispose()
        self._reader.dispose()


def prepared(tx: Connection) -> int:
    """Tables are there, and of no newer version than this one; the stamp of the rows, 0 where there are none."""
    if tx.dialect.name == "postgresql":
        tx.execute(select(func.pg_advisory_xact_lock(TABLES)))
    metadata.create_all(tx)
    stamp = generation(tx)[0]
    if stamp > STAMP:
        raise NewerRows(f"the database was written by a newer version (stamp {stamp}, this one knows {STAMP})")
    return stamp


def wipe(tx: Connection) -> str:
    """All rows go, the outbox too; a new generation. Everything is then rebuilt from the log (rule 7)."""
    metadata.drop_all(tx)
    metadata.create_all(tx)
    return stamped(tx)


def stamped(tx: Connection) -> str:
    """Empty tables are of this version; their generation."""
    made = str(uuid.uuid4())
    tx.execute(insert(meta).values(id=1, stamp=STAMP, generation=made))
    return made


_GENERATION = select(meta.c.stamp, meta.c.generation)  # asked every second: built once


def generation(tx: Connection) -> tuple[int, str]:
    """Stamp and generation of the rows; (0, "") where there are none."""
    row = tx.execute(_GENERATION).first()
    return (row.stamp, row.generation) if row else (0, "")


def next_offsets(tx: Connection) -> dict[tuple[str, int], int]:
    """(topic, partition) to the offset that the rows have not folded yet."""
    return {
        (r.topic, r.partition): r.next
        for r in tx.execute(select(positions.c.topic, positions.c.partition, positions.c.next))
    }


Rows = Sequence[dict[str, Any]] | Sequence[tuple[Any, ...]]  # tuples are of all columns, in the table's order


def insert_all(tx: Connection, table: Table, rows: Rows) -> None:
    """Insert rows that are not there yet."""
    _put(tx, table, rows, "plain")


def upsert(tx: Connection, table: Table, rows: Rows, adding: tuple[str, ...] = ()) -> None:
    """Insert, or replace the rows with the same primary key; columns in `adding` are added to instead."""
    _put(tx, table, rows, "replace", adding)


def insert_new(tx: Connection, table: Table, rows: Rows) -> None:
    """Insert; rows whose key is there already are left as they are."""
    _put(tx, table, rows, "keep")


def update_all(tx: Connection, table: Table, columns: tuple[str, ...], rows: Sequence[tuple[Any, ...]]) -> None:
    """Set these columns (in the table's order) in rows by their primary key, which comes behind the values."""
    if rows:
        tx.exec_driver_sql(_updating(tx.dialect, table, columns), rows)


def _put(tx: Connection, table: Table, rows: Rows, conflict: str, adding: tuple[str, ...] = ()) -> None:
    """Straight to the driver: SQLAlchemy's handling of each row's parameters costs more than the insert itself.

    All rows have the same columns, of types that both drivers take as they are.
    """
    if rows:
        given = frozenset(rows[0] if isinstance(rows[0], dict) else table.columns.keys())
        statement, columns = _inserting(tx.dialect, table, given, conflict, adding)
        tx.exec_driver_sql(statement, [r if isinstance(r, tuple) else itemgetter(*columns)(r) for r in rows])


@cache
def _inserting(
    dialect: Dialect, table: Table, given: frozenset[str], conflict: str, adding: tuple[str, ...]
) -> tuple[str, tuple[str, ...]]:
    """The text of the statement, and the columns in the order of its parameters."""
    statement: Any = (postgresql.insert if dialect.name == "postgresql" else sqlite.insert)(table)
    keys = [c.name for c in table.primary_key.columns]
    columns = tuple(c.name for c in table.columns if c.name in given)
    new = statement.excluded
    if conflict == "replace":
        changed = {c: table.c[c] + new[c] if c in adding else new[c] for c in columns if c not in keys}
        statement = statement.on_conflict_do_update(index_elements=keys, set_=changed)
    elif conflict == "keep":
        statement = statement.on_conflict_do_nothing()
    return str(statement.compile(dialect=_positional(dialect), column_keys=columns)), columns


@cache
def _updating(dialect: Dialect, table: Table, columns: tuple[str, ...]) -> str:
    keys = table.primary_key.columns
    statement = update(table).where(*(k == bindparam(f"at_{k.name}", type_=k.type) for k in keys))
    return str(statement.compile(dialect=_positional(dialect), column_keys=columns))


def _positional(dialect: Dialect) -> Dialect:
    make: Any = type(dialect)
    positional: Dialect = make(paramstyle="qmark" if dialect.name == "sqlite" else "format")
    return positional


def _engine(url: str, setup: Sequence[str], *, write: bool) -> Engine:
    if not url.startswith("sqlite"):
        waits = f"-c lock_timeout={BUSY_MS} -c idle_in_transaction_session_timeout={2 * BUSY_MS}"
        engine = create_engine(
            url,
            isolation_level="READ COMMITTED" if write else "REPEATABLE READ",
            pool_pre_ping=True,
            hide_parameters=True,
            pool_size=4,
            connect_args={"options": waits} if write else {},
        )

        @event.listens_for(engine, "connect")
        def begun(connection: Any, _record: Any) -> None:
            for statement in setup:
                connection.execute(statement)
            connection.commit()

        return engine
    engine = create_engine(
        url,
        poolclass=QueuePool,
        pool_size=4,
        connect_args={"timeout": BUSY_MS / 1000, "check_same_thread": False},
        hide_parameters=True,
    )

    @event.listens_for(engine, "connect")
    def connected(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # this module says BEGIN itself
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        for statement in setup:
            connection.execute(statement)

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine
