"""What waits to be said (rule 3): one lane per source partition.

A lane is ordered by (source offset, position), never by a sequence. A row goes when its record was read back, not when
it was acknowledged. What waits already, or was read back already, is not put again.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, delete, exists, select, tuple_, update

from projections.outgoing import Outgoing
from projections.sql.keys import among
from projections.sql.positions import here
from projections.sql.schema import delivery_requests, delivery_results, notices, outbox, positions
from projections.sql.store import insert_new
from topics.catalogue import DEAD_LETTERS
from topics.codec import encode
from topics.dead_letters import KEPT_BYTES, dead_letter_id, digest, to_headers
from topics.events import DeliveryCancelled, NoticeEnded, NoticeUpdated
from topics.fetch import Spot

_O, _N = outbox.c, notices.c
_ANY = select(_O.position).limit(1)
_DROP = delete(outbox).where(among(_O.event_id))
_WAIT = select(_O.event_id).where(among(_O.event_id))
_LANE = (
    select(_O.source_offset, _O.position, _O.event_id, _O.topic, _O.key, _O.value, _O.headers)
    .where(
        _O.lane_topic == bindparam("at_topic"),
        _O.lane_partition == bindparam("at_partition"),
        tuple_(_O.source_offset, _O.position) > tuple_(bindparam("after_offset"), bindparam("after_position")),
    )
    .order_by(_O.source_offset, _O.position)
    .limit(bindparam("most"))
)
_LANES = select(positions.c.topic, positions.c.partition).where(
    exists().where(_O.lane_topic == positions.c.topic, _O.lane_partition == positions.c.partition)
)
_TOLD = select(_N.user_id, _N.notice_id).where(among(_N.user_id, _N.notice_id))
_VERSIONS = _TOLD.add_columns(_N.version_offset, _N.version_index)
_ENDED = _TOLD.where(_N.ended_at.is_not(None))
_REQUESTED = select(delivery_requests.c.delivery_id).where(among(delivery_requests.c.delivery_id))
_OVER = select(delivery_results.c.delivery_id).where(
    among(delivery_results.c.delivery_id), delivery_results.c.outcome != "waiting"
)

ANSWERS = 1 << 24  # positions below are for what a record says itself


@dataclass(frozen=True, slots=True)
class Waiting:
    """A row of the outbox: where its lane puts it, and the bytes to send."""

    source_offset: int
    position: int
    event_id: str
    topic: str
    key: str | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def row_of(source_offset: int, position: int, out: Outgoing) -> Waiting:
    """An event as a row of its lane."""
    event = out.event
    return Waiting(source_offset, position, event.event_id, out.topic, out.key, encode(event), ())


def answer_row(asked_offset: int, out: Outgoing) -> Waiting:
    """A decision as a row of its lane, behind what the record that asked for it says itself.

    One record may ask more than one question (an end is told on every channel), so the place comes from the question.
    """
    identity = out.event.event_id
    return row_of(asked_offset, ANSWERS + int(hashlib.sha256(identity.encode()).hexdigest()[:7], 16), out)


def dead_letter_row(
    topic: str, partition: int, offset: int, key: bytes | None, value: bytes, reason: str, position: int = 0
) -> Waiting:
    """A record that can't be taken, as a row of the lane of its partition."""
    identity = dead_letter_id(topic, partition, offset, digest(value))
    headers = tuple(to_headers(topic, partition, offset, value, reason))
    text = key.decode(errors="replace").replace("\0", "\ufffd") if key is not None else None
    return Waiting(offset, position, identity, DEAD_LETTERS, text, value[:KEPT_BYTES], headers)


def put(tx: Connection, lane: Spot, rows: Sequence[Waiting]) -> None:
    """Add rows; those that wait already are left alone."""
    insert_new(
        tx,
        outbox,
        [
            {
                "lane_topic": lane.topic,
                "lane_partition": lane.partition,
                "source_offset": r.source_offset,
                "position": r.position,
                "event_id": r.event_id,
                "topic": r.topic,
                "key": r.key,
                "value": r.value,
                "headers": json.dumps([(n, v.decode()) for n, v in r.headers]) if r.headers else None,
            }
            for r in rows
        ],
    )


def waiting_ids(tx: Connection, event_ids: Iterable[str]) -> set[str]:
    """Which of these wait in the outbox."""
    return set(tx.execute(_WAIT, {"keys": event_ids}).scalars())


def drop(tx: Connection, event_ids: Iterable[str | None]) -> None:
    """These were read back."""
    if tx.execute(_ANY).first() is not None:
        tx.execute(_DROP, {"keys": [i for i in event_ids if i]})


def lane(tx: Connection, spot: Spot, after: tuple[int, int], limit: int) -> list[Waiting]:
    """The next rows of a lane behind (source offset, position), oldest first."""
    where = here(spot) | {"after_offset": after[0], "after_position": after[1], "most": limit}
    return [_waiting(r) for r in tx.execute(_LANE, where)]


def lanes(tx: Connection) -> list[Spot]:
    """The lanes in which something waits."""
    return [Spot(*row) for row in tx.execute(_LANES)]


def bury(tx: Connection, spot: Spot, row: Waiting, reason: str) -> None:
    """The broker refuses the row for good: a dead letter goes in its place."""
    dead = dead_letter_row(
        spot.topic, spot.partition, row.source_offset, (row.key or "").encode(), row.value, reason, row.position
    )
    o = outbox.c
    tx.execute(
        update(outbox)
        .where(o.event_id == row.event_id)
        .values(
            event_id=dead.event_id,
            topic=dead.topic,
            value=dead.value,
            headers=json.dumps([(n, v.decode()) for n, v in dead.headers]),
        )
    )


def _waiting(row: Any) -> Waiting:
    headers = tuple((n, v.encode()) for n, v in json.loads(row.headers)) if row.headers else ()
    return Waiting(row.source_offset, row.position, row.event_id, row.topic, row.key, bytes(row.value), headers)


def read_back(tx: Connection, outs: Sequence[Outgoing]) -> set[int]:
    """Which of `outs` (by number) were read back already, by the rows that they made."""
    marked: dict[Any, defaultdict[Any, list[int]]] = {q: defaultdict(list) for q in (_TOLD, _ENDED, _REQUESTED, _OVER)}
    updates: list[tuple[int, NoticeUpdated]] = []
    for number, out in enumerate(outs):
        if len(out.mark) == 1:
            marked[_REQUESTED][out.mark[0]].append(number)
        elif out.mark:
            marked[_TOLD][out.mark].append(number)
        else:
            match out.event:
                case NoticeEnded() as e:
                    marked[_ENDED][e.user, e.notice_id].append(number)
                case NoticeUpdated() as e:
                    updates.append((number, e))
                case DeliveryCancelled() as e:
                    marked[_OVER][e.delivery_id].append(number)
    found: set[int] = set()
    if updates:
        rows = tx.execute(_VERSIONS, {"keys": {(e.user, e.notice_id) for _, e in updates}})
        at = {(r.user_id, r.notice_id): (r.version_offset, r.version_index) for r in rows}
        never = (-1, -1)
        found.update(n for n, e in updates if (e.cause_offset, e.cause_index) <= at.get((e.user, e.notice_id), never))
    for query, numbers in marked.items():
        for row in tx.execute(query, {"keys": numbers}) if numbers else ():
            found.update(numbers[row[0] if len(row) == 1 else tuple(row)])
    return found
