"""One batch of one partition, in one transaction: fence, rows, outbox, answers, position (rules 1, 2, 3 and 6).

Synchronous and without a clock of its own: the caller retries what the database refuses, and ends the process on Bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, literal, select

from projections.outgoing import Outgoing, Refused
from projections.sql import outbox, positions
from projections.sql.fold import Decider, TopicFold
from projections.sql.schema import STAMP, crashes, dead_letters
from projections.sql.store import Store, insert_new, is_away, is_too_much
from topics.dead_letters import DeadLetter, digest
from topics.events import Record, TopicOpened
from topics.fetch import Broken, Item, Spot

CHUNK = 2_000  # effects of one record in one transaction
MOST = 4 * CHUNK  # of all records of a batch, but for the last one's
CRASHES = 3


_DEAD, _CRASHED = dead_letters.c, crashes.c
_TROUBLE = (
    select(_DEAD.offset, _DEAD.hash, literal(0).label("ends"))
    .where(_DEAD.topic == bindparam("at_topic"), _DEAD.partition == bindparam("at_partition"))
    .where(_DEAD.offset.between(bindparam("first"), bindparam("last")))
    .union_all(
        select(_CRASHED.offset, literal("").label("hash"), _CRASHED["count"].label("ends"))
        .where(_CRASHED.topic == bindparam("at_topic"), _CRASHED.partition == bindparam("at_partition"))
        .where(_CRASHED.offset.between(bindparam("first"), bindparam("last")))
    )
)


class OtherRows(RuntimeError):
    """The rows are of another generation or stamp than this worker began with: begin as at a start."""


class Bug(RuntimeError):
    """The fold failed in a way that nobody foresaw, at `offset`.

    The process ends; three such ends make a dead letter.
    """

    def __init__(self, spot: Spot, offset: int, cause: BaseException) -> None:
        super().__init__(f"{spot.topic}/{spot.partition} offset {offset}: {type(cause).__name__}: {cause}")
        self.spot, self.offset = spot, offset


@dataclass(frozen=True, slots=True)
class Done:
    """The position after a commit, and where in the lane the first row stands that went to the outbox.

    `rest`: all effects of the record at `next`, where it is half done.
    """

    next: int
    done: int
    said: tuple[int, int] | None
    rest: Sequence[Outgoing] = ()


class _Cut(Exception):
    """The record at index `at` of the batch needs transactions of its own."""

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


def commit(
    store: Store,
    fold: TopicFold,
    spot: Spot,
    batch: Sequence[Item],
    at: tuple[int, int],
    rows_of: str,
    *,
    decider: Decider | None,
    mark: bool = False,
    rest: Sequence[Outgoing] = (),
) -> Done:
    """Fold `batch` (offsets >= at[0], in order) into rows of generation `rows_of`.

    `decider` is null until the start's barrier is reached: nothing is decided before. `rest` may be what the commit
    before this one, to `at`, gave: then a half-done record is not folded anew for each chunk. FenceLost, OtherRows,
    Bug, SQLAlchemy's errors.
    """
    refused: dict[int, str] = {}
    while True:
        try:
            with store.writing() as tx:
                return _commit(tx, fold, spot, batch, at, rows_of, decider, refused, rest, mark=mark)
        except _Cut as cut:
            batch = batch[: cut.at]
        except (positions.FenceLost, OtherRows):
            raise
        except Exception as error:
            if is_away(error):
                raise
            if len(batch) == 1 and not refused and is_too_much(error):
                refused[batch[0].offset] = "the database can hold no such value"
                continue
            if len(batch) == 1:
                raise Bug(spot, batch[0].offset, error) from error
            batch = batch[:1]  # one by one, until the record that nobody foresaw stands alone


def sweep(
    store: Store, fold: TopicFold, spot: Spot, at: tuple[int, int], rows_of: str, decider: Decider
) -> tuple[int, int] | None:
    """Decide all that is asked and unanswered on a partition, once it is owned and the barrier reached.

    Returns where in the lane the first of the answers stands.
    """
    with store.writing() as tx:
        _fence(tx, spot, at, rows_of)
        state = fold.asked(tx, spot)
        if state is None:
            return None
        rows = [outbox.answer_row(offset, out) for offset, out in fold.answers(tx, spot, state, decider)]
        outbox.put(tx, spot, rows)
        return _first(rows)


def _commit(
    tx: Connection,
    fold: TopicFold,
    spot: Spot,
    batch: Sequence[Item],
    at: tuple[int, int],
    rows_of: str,
    decider: Decider | None,
    refused: dict[int, str],
    rest: Sequence[Outgoing],
    *,
    mark: bool,
) -> Done:
    _fence(tx, spot, at, rows_of)
    skipped, noted = _dead(tx, spot, batch)
    skipped = refused | skipped
    records = [
        i for i in batch if isinstance(i, Record) and not isinstance(i.event, TopicOpened) and i.offset not in skipped
    ]
    midway = len(rest) - at[1] > CHUNK and batch[0].offset not in skipped  # the rows move with the last chunk
    state = None if midway else fold.load(tx, spot, records)
    said: list[tuple[int, int, Outgoing]] = []
    rows: list[outbox.Waiting] = []
    half: tuple[int, int, str] | None = None
    for index, item in enumerate(batch):
        if item.offset in skipped:
            rows += _buried(item, skipped[item.offset])
            continue
        if not isinstance(item, Record) or isinstance(item.event, TopicOpened):
            continue
        try:
            outs = rest if midway else fold.apply(state, item)
        except Refused as refusal:
            rows.append(_dead_row(item, str(refusal)))
            continue
        if index and len(outs) > CHUNK:
            raise _Cut(index)
        done = at[1] if index == 0 else 0
        until = min(len(outs), done + CHUNK)
        said += [(item.offset, i, outs[i]) for i in range(done, until)]
        if until < len(outs):
            half, rest = (item.offset, until, item.event.event_id if item.event else ""), outs
            break
        if len(said) >= MOST:
            batch = batch[: index + 1]
            break
    known = outbox.read_back(tx, [out for _, _, out in said])
    fresh = [outbox.row_of(*said[number]) for number in range(len(said)) if number not in known]
    rows += [r for r in fresh if not noted or (r.source_offset, digest(r.value)) not in noted]  # what no broker takes
    if half is not None:
        outbox.put(tx, spot, rows)
        positions.move(tx, spot, at, half[:2], half[2])
        return Done(half[0], half[1], _first(rows), rest)
    fold.save(tx, spot, state)
    if decider is not None:
        rows += [outbox.answer_row(offset, out) for offset, out in fold.answers(tx, spot, state, decider)]
    outbox.drop(tx, map(_id, batch))
    outbox.put(tx, spot, rows)
    last = batch[-1]
    positions.move(tx, spot, at, (last.offset + 1, 0))
    if mark:
        positions.mark(tx, spot, last.offset, name_of(last), last.timestamp)
    return Done(last.offset + 1, 0, _first(rows))


def _first(rows: Sequence[outbox.Waiting]) -> tuple[int, int] | None:
    return min(((r.source_offset, r.position) for r in rows), default=None)


def name_of(item: Item) -> str:
    """What names a record on the trail: its event id, or a hash where it has none."""
    if isinstance(item, Record):
        return item.event.event_id if item.event else "tombstone"
    return item.event_id if isinstance(item, DeadLetter) else digest(item.value)


def note_crash(store: Store, bug: Bug) -> int:
    """Remember that this process ends at an offset; how often it did."""
    with store.writing() as tx:
        return positions.crashed(tx, bug.spot, bug.offset)


def _id(item: Item) -> str | None:
    if isinstance(item, Record):
        return item.event.event_id if item.event else None
    return item.event_id if isinstance(item, DeadLetter) else None


def _fence(tx: Connection, spot: Spot, at: tuple[int, int], rows_of: str) -> None:
    """The first statement of each transaction: the position and the rows have to be what this worker believes."""
    found, stamp, rows = positions.fenced(tx, spot)
    if stamp != STAMP or rows != rows_of:
        msg = f"the rows are of generation {rows}, stamp {stamp}"
        raise OtherRows(msg)
    if found != at:
        msg = f"{spot.topic}/{spot.partition} is at {found[0]}, not at {at[0]}"
        raise positions.FenceLost(msg)


def _dead(tx: Connection, spot: Spot, batch: Sequence[Item]) -> tuple[dict[int, str], set[tuple[int, str]]]:
    """What is passed over: offset to reason (empty for what is a dead letter already), and (offset, hash) noted."""
    letters = [i for i in batch if isinstance(i, DeadLetter)]
    insert_new(
        tx,
        dead_letters,
        [
            {
                "topic": d.source_topic,
                "partition": d.source_partition,
                "offset": d.source_offset,
                "hash": d.hash,
                "reason": d.reason,
                "at": d.timestamp,
            }
            for d in letters
        ],
    )
    first, last = batch[0].offset, batch[-1].offset
    noted: set[tuple[int, str]] = set()
    crashed: set[int] = set()
    for row in tx.execute(_TROUBLE, positions.here(spot) | {"first": first, "last": last}):
        if row.hash:
            noted.add((row.offset, row.hash))
        elif row.ends >= CRASHES:
            crashed.add(row.offset)
    found: dict[int, str] = {i.offset: i.reason for i in batch if isinstance(i, Broken)}
    for item in batch if noted or crashed else ():
        if isinstance(item, DeadLetter):
            continue
        if item.offset in crashed:
            found[item.offset] = "bug"
        if noted and (item.offset, digest(_bytes(item))) in noted:
            found[item.offset] = ""
    return found, noted


def _buried(item: Item, reason: str) -> list[outbox.Waiting]:
    if not reason or isinstance(item, DeadLetter):
        return []
    if isinstance(item, Broken):
        return [outbox.dead_letter_row(item.topic, item.partition, item.offset, item.key, item.value, reason)]
    return [_dead_row(item, reason)]


def _dead_row(record: Record, reason: str) -> outbox.Waiting:
    return outbox.dead_letter_row(
        record.topic, record.partition, record.offset, record.key.encode(), _bytes(record), reason
    )


def _bytes(item: Record | Broken) -> bytes:
    return item.value if isinstance(item, Broken) else item.raw
