"""The queue in SQL: what is requested and has no final result, and the leases on it. SQLite and PostgreSQL alike.

A lease is given by one statement that only the first of two senders can win, in a transaction that has checked the
rows' generation under a lock, so that a wiped and half-refolded table is never sent from. Leases are no read model:
they have a table of their own that no rebuild wipes. Every method is one transaction and blocks.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Integer,
    MetaData,
    Select,
    String,
    Table,
    Text,
    and_,
    delete,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from projections.sql.schema import delivery_requests as requests
from projections.sql.schema import delivery_results as results
from projections.sql.schema import meta
from projections.sql.store import Store
from projections.sql.views.positions import reached
from sender.delivery import Delivery, Taken, clock_s
from topics.catalogue import DELIVERIES

WAITING = "waiting"
# In the statement's text, so that SQLite can choose an index on the waiting ones.
IS_WAITING: ColumnElement[str] = literal_column("'waiting'")
_DELIVERY = [requests.c["user_id" if f.name == "user" else f.name] for f in fields(Delivery)]
ADVISORY_LOCK = 7_249_002  # two senders that make the table at once

lease_metadata = MetaData()
leases = Table(
    "sender_leases",
    lease_metadata,
    Column("delivery_id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("until", BigInteger, nullable=False),
    Column("accepted_attempt", Integer),
    Column("accepted_answer", Text),
)


class RowsMoved(RuntimeError):
    """The rows are not those that were found complete: wiped, restored or of another version."""


@dataclass(frozen=True, slots=True)
class Fold:
    """What the rows of `deliveries` hold: per partition the next offset and the epoch that it belongs to."""

    stamp: int
    generation: str
    next: dict[int, int]
    epoch: dict[int, str]

    def continues(self, older: Fold) -> bool:
        """Whether these are the same rows, as far as `older` or further."""
        same = (self.stamp, self.generation) == (older.stamp, older.generation)
        return same and all(self.next.get(p, 0) >= n for p, n in older.next.items())


@dataclass(frozen=True, slots=True)
class Look:
    """The last look before an attempt: `now` by the database, and what has come of the delivery so far."""

    now: int
    outcome: str
    attempts: int


class Queue:
    """One sender's view of the queue; `owner` is its own for this run."""

    def __init__(self, store: Store, owner: str, lease_s: float, partitions: int) -> None:
        self._store, self._owner, self._lease_s = store, owner, lease_s
        self._scanned = dict.fromkeys(range(partitions), 0)  # below this offset every request has a result row
        self._scanned_of = ""

    def prepare(self) -> None:
        """Make the table of leases."""
        with self._store.writing() as tx:
            if tx.dialect.name == "postgresql":
                tx.execute(select(func.pg_advisory_xact_lock(ADVISORY_LOCK)))
            lease_metadata.create_all(tx)

    def fold(self) -> Fold | None:
        """What the rows hold; null before a worker made them."""
        with self._store.reading() as tx:
            return _fold(tx, lock=False)

    def has_due(self) -> bool:
        """Whether `take` would find something. A read, so that an idle sender never asks for the write lock."""
        with self._store.reading() as tx:
            return any(tx.execute(query.limit(1)).first() for query in self._due(_now(tx)))

    def take(self, limit: int, expected: Fold) -> tuple[Fold, list[Taken]]:
        """Leases on up to `limit` due deliveries, and the fold they were found in. RowsMoved."""
        began = clock_s()
        with self._store.writing() as tx:
            fold = _continued(tx, expected, lock=True)
            now = _now(tx)
            found: list[Any] = []
            for query in self._due(now):
                if len(found) < limit:
                    found += tx.execute(
                        query.limit(limit - len(found)).with_for_update(skip_locked=True, of=requests)
                    ).all()
            until = now + int(self._lease_s * 1000)
            won = {row.delivery_id for row in found if self._win(tx, row.delivery_id, now, until)}
        return fold, [_taken(row, began + self._lease_s) for row in found if row.delivery_id in won]

    def look(self, delivery_id: str, expected: Fold) -> Look:
        """The delivery's results as they are now. RowsMoved."""
        with self._store.reading() as tx:
            _continued(tx, expected, lock=False)
            row = tx.execute(
                select(results.c.outcome, results.c.attempts).where(results.c.delivery_id == delivery_id)
            ).first()
            return Look(_now(tx), row.outcome if row else WAITING, row.attempts if row else 0)

    def renew(self, ids: list[str]) -> tuple[set[str], float]:
        """Those of `ids` that are still this sender's, now with a fresh lease, and until when they are good."""
        began = clock_s()
        with self._store.writing() as tx:
            until = _now(tx) + int(self._lease_s * 1000)
            statement = (
                update(leases).where(leases.c.owner == self._owner, leases.c.delivery_id.in_(ids)).values(until=until)
            )
            return set(tx.execute(statement.returning(leases.c.delivery_id)).scalars()), began + self._lease_s

    def folded(self, attempts: dict[str, int]) -> tuple[set[str], dict[int, int]]:
        """Those deliveries whose results hold this attempt or are final, and how far the rows have come."""
        with self._store.reading() as tx:
            query = select(results.c.delivery_id, results.c.outcome, results.c.attempts).where(
                results.c.delivery_id.in_(attempts)
            )
            done = {
                r.delivery_id
                for r in tx.execute(query)
                if r.outcome != WAITING or r.attempts >= attempts[r.delivery_id]
            }
            fold = _fold(tx, lock=False)
            return done, fold.next if fold else {}

    def drop(self, ids: set[str]) -> None:
        """The results of these have been read back (or need none): the leases go."""
        with self._store.writing() as tx:
            tx.execute(delete(leases).where(leases.c.owner == self._owner, leases.c.delivery_id.in_(ids)))

    def note_accepted(self, delivery_id: str, attempt: int, answer: str) -> None:
        """The log is away after an acceptance: whoever has the lease next says it there, and sends nothing."""
        with self._store.writing() as tx:
            mine = leases.c.delivery_id == delivery_id, leases.c.owner == self._owner
            tx.execute(update(leases).where(*mine).values(accepted_attempt=attempt, accepted_answer=answer))

    def sweep(self, *, anew: bool = False) -> None:
        """Move on what needs no more scanning (`anew`: look at all rows again); remove leases that are over and were
        never given back.
        """
        with self._store.reading() as tx:
            fold = _fold(tx, lock=False)
            if fold is None:
                return
            known = fold.generation == self._scanned_of and not anew
            scanned = {}
            for p, low in self._scanned.items():
                mine = {p: low if known else 0}
                first = tx.execute(_no_result(select(func.min(requests.c.offset)), mine)).scalar()
                top = tx.execute(select(func.max(requests.c.offset)).where(requests.c.partition == p)).scalar()
                scanned[p] = mine[p] if top is None else top + 1 if first is None else first
            self._scanned = scanned
            self._scanned_of = fold.generation
            final = results.c.delivery_id == leases.c.delivery_id, results.c.outcome != WAITING
            over = set(tx.execute(select(leases.c.delivery_id).where(leases.c.until < _now(tx), *final)).scalars())
        if over:
            with self._store.writing() as tx:
                tx.execute(delete(leases).where(leases.c.delivery_id.in_(over), leases.c.until < _now(tx)))

    def _due(self, now: int) -> list[Select[Any]]:
        """Retries whose time has come, then requests that were never tried; without those under a lease."""
        columns = [*_DELIVERY, leases.c.owner, leases.c.accepted_attempt, leases.c.accepted_answer]
        free = or_(leases.c.delivery_id.is_(None), leases.c.until <= now)
        on_lease = leases.c.delivery_id == requests.c.delivery_id
        again = (
            select(*columns, results.c.attempts)
            .join(results, results.c.delivery_id == requests.c.delivery_id)
            .outerjoin(leases, on_lease)
            .where(results.c.outcome == IS_WAITING, results.c.next_at <= now, free)
            .order_by(results.c.next_at)
        )
        fresh = _no_result(select(*columns, results.c.attempts), self._scanned).outerjoin(leases, on_lease).where(free)
        return [again, fresh.order_by(requests.c.requested_at)]

    def _win(self, tx: Connection, delivery_id: str, now: int, until: int) -> bool:
        """The lease, unless somebody has taken it since it was found free."""
        statement: Any = (postgresql.insert if tx.dialect.name == "postgresql" else sqlite.insert)(leases)
        statement = statement.values(delivery_id=delivery_id, owner=self._owner, until=until).on_conflict_do_update(
            index_elements=[leases.c.delivery_id],
            set_={"owner": self._owner, "until": until},
            where=leases.c.until <= now,
        )
        return tx.execute(statement.returning(leases.c.delivery_id)).first() is not None


def _no_result(query: Select[Any], scanned: dict[int, int]) -> Select[Any]:
    """Requests without a result row, per partition from the offset on below which there are none."""
    beyond = or_(*(and_(requests.c.partition == p, requests.c.offset >= low) for p, low in scanned.items()))
    return (
        query.select_from(requests)
        .outerjoin(results, results.c.delivery_id == requests.c.delivery_id)
        .where(results.c.delivery_id.is_(None), beyond)
    )


def _taken(row: Any, good_until: float) -> Taken:
    delivery = Delivery(*row[: len(_DELIVERY)])
    accepted = (row.accepted_attempt, row.accepted_answer) if row.accepted_attempt is not None else None
    return Taken(delivery, row.attempts or 0, good_until, row.owner is not None, accepted)


def _fold(tx: Connection, *, lock: bool) -> Fold | None:
    query = select(meta.c.stamp, meta.c.generation)
    row = tx.execute(query.with_for_update(read=True) if lock else query).first()
    if row is None:
        return None
    at = reached(tx, DELIVERIES)
    return Fold(row.stamp, row.generation, {p: r.next for p, r in at.items()}, {p: r.epoch for p, r in at.items()})


def _continued(tx: Connection, older: Fold, *, lock: bool) -> Fold:
    fold = _fold(tx, lock=lock)
    if fold is None or not fold.continues(older):
        raise RowsMoved
    return fold


def _now(tx: Connection) -> int:
    """The database's time (ms)."""
    postgres = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
    lite = "SELECT CAST(round((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"
    return int(tx.execute(text(postgres if tx.dialect.name == "postgresql" else lite)).scalar_one())
