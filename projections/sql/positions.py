"""Where each partition was read to (rule 1), and how a reader notices that its log is another one (rule 7)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, select, update

from projections.sql.schema import crashes, meta, positions, trail
from projections.sql.store import insert_new, upsert
from topics.fetch import Spot

TRAIL_STEP_MS = 1_000
TRAIL_FINE_MS = 120_000
TRAIL_KEPT_MS = 3_600_000


# Statements of every transaction are built once: building costs more than running them.
_P = positions.c
_HERE = (_P.topic == bindparam("at_topic"), _P.partition == bindparam("at_partition"))
_READ = select(_P.next, _P.done, _P.half_id, _P.epoch).where(*_HERE).with_for_update()
_FENCED = (
    select(_P.next, _P.done, meta.c.stamp, meta.c.generation)
    .join_from(positions, meta, meta.c.id == 1)
    .where(*_HERE)
    .with_for_update(of=positions)
)
_MOVE = (
    update(positions)
    .where(*_HERE, _P.next == bindparam("from_next"), _P.done == bindparam("from_done"))
    .values(next=bindparam("to_next"), done=bindparam("to_done"), half_id=bindparam("to_half"))
)


class FenceLost(RuntimeError):
    """Somebody else moved the position: roll back, read it anew, go on from there."""


@dataclass(frozen=True, slots=True)
class Position:
    """`next` is the offset to read next; `done` of its effects are out already (`half_id` names that record)."""

    next: int
    done: int
    half_id: str
    epoch: str


def at_assignment(tx: Connection, spot: Spot, epoch: str, start: int = 0) -> Position:
    """The stored position; a partition never read begins at `start` in this epoch, and none stays before it."""
    row = {"topic": spot.topic, "partition": spot.partition, "next": start, "done": 0, "half_id": "", "epoch": epoch}
    insert_new(tx, positions, [row])
    found = read(tx, spot)
    if found.next < start:  # what is kept for a while only was not read in that while
        move(tx, spot, (found.next, found.done), (start, 0))
    return read(tx, spot)


def here(spot: Spot) -> dict[str, Any]:
    """The parameters by which the statements made once name a partition."""
    return {"at_topic": spot.topic, "at_partition": spot.partition}


def read(tx: Connection, spot: Spot) -> Position:
    """The position as it stands; (0, 0) where there is none.

    On PostgreSQL the row stays locked until the transaction ends.
    """
    row = tx.execute(_READ, here(spot)).first()
    return Position(row.next, row.done, row.half_id, row.epoch) if row else Position(0, 0, "", "")


def fenced(tx: Connection, spot: Spot) -> tuple[tuple[int, int], int, str]:
    """The position (locked on PostgreSQL until the transaction ends), and stamp and generation of the rows."""
    row = tx.execute(_FENCED, here(spot)).first()
    return ((row.next, row.done), row.stamp, row.generation) if row else ((0, 0), 0, "")


def move(tx: Connection, spot: Spot, expected: tuple[int, int], to: tuple[int, int], half_id: str = "") -> None:
    """Move the position from `expected`; exactly one row. FenceLost."""
    values = {
        "from_next": expected[0],
        "from_done": expected[1],
        "to_next": to[0],
        "to_done": to[1],
        "to_half": half_id,
    }
    if tx.execute(_MOVE, here(spot) | values).rowcount != 1:
        raise FenceLost(f"{spot.topic}/{spot.partition} moved under this transaction")


def mark(tx: Connection, spot: Spot, offset: int, event_id: str, at: int) -> None:
    """Remember which record stands at `offset`, to be compared with the log later."""
    upsert(
        tx,
        trail,
        [{"topic": spot.topic, "partition": spot.partition, "offset": offset, "event_id": event_id, "at": at}],
    )


def trails(tx: Connection) -> dict[Spot, tuple[str, int, list[tuple[int, str, int]]]]:
    """Of each partition its epoch, `next`, and what is remembered: (offset, event id, log time), the newest first.

    A half-done request stands first, at `next` itself, with time 0.
    """
    found: dict[Spot, tuple[str, int, list[tuple[int, str, int]]]] = {}
    for row in tx.execute(select(positions)):
        half = [(row.next, row.half_id, 0)] if row.half_id else []
        found[Spot(row.topic, row.partition)] = (row.epoch, row.next, half)
    for row in tx.execute(select(trail).order_by(trail.c.offset.desc())):
        if Spot(row.topic, row.partition) in found:
            found[Spot(row.topic, row.partition)][2].append((row.offset, row.event_id, row.at))
    return found


def thin(tx: Connection, spot: Spot, newest_at: int) -> None:
    """Older than two minutes one mark a minute is enough, older than an hour none, but the newest is always kept."""
    t = trail.c
    rows = tx.execute(
        select(t.offset, t.at).where(t.topic == spot.topic, t.partition == spot.partition).order_by(t.offset.desc())
    ).all()
    minutes: set[int] = set()
    gone = []
    for i, row in enumerate(rows):
        age, minute = newest_at - row.at, row.at // 60_000
        if i and (age > TRAIL_KEPT_MS or (age > TRAIL_FINE_MS and minute in minutes)):
            gone.append(row.offset)
        minutes.add(minute)
    if gone:
        tx.execute(delete(trail).where(t.topic == spot.topic, t.partition == spot.partition, t.offset.in_(gone)))


def crashed(tx: Connection, spot: Spot, offset: int) -> int:
    """Note that this process ends because of the record at `offset`; how often that happened."""
    c = crashes.c
    row = {"topic": spot.topic, "partition": spot.partition, "offset": offset, "count": 1}
    upsert(tx, crashes, [row], adding=("count",))
    where = (c.topic == spot.topic, c.partition == spot.partition, c.offset == offset)
    return int(tx.execute(select(c["count"]).where(*where)).scalar_one())
