"""All that the log holds about one notice, found without an index: its user's partition from the raise on, the
deliveries from that time on, and the records that these name as their causes.

Bytes are searched for the notice's id before anything is decoded, so a long partition costs little more than a read.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.codec import event_name
from topics.events import (
    AlertCommitted,
    Cause,
    Decided,
    Due,
    Effect,
    NoticeEnded,
    NoticeMarked,
    NoticeRaised,
    NoticeUpdated,
    Record,
)
from topics.fetch import Spot
from topics.partition import partition_of
from topics.read import HistoryReader

FOLLOWED = 40  # causes of one notice that are looked up: of a condition that said more, the first ones and the last
PARTS_BACK = 20_000  # records before a commit among which the earlier parts of it are looked for


class Receiver(NamedTuple):
    """Somebody who has a notice: the key of theirs, and where on `notices` it begins."""

    user: str
    offset: int


@dataclass(slots=True)
class Evidence:
    """Records in the order of their partitions; causes by (topic, partition, offset), those that are still kept."""

    notices: list[Record] = field(default_factory=list)
    deliveries: list[Record] = field(default_factory=list)
    causes: dict[tuple[str, int, int], Record] = field(default_factory=dict)

    def cause(self, cause: Cause) -> Record | None:
        """The record that a cause names; null if it is no longer kept, or another one stands there."""
        found = self.causes.get((cause.topic, cause.partition, cause.offset))
        return found if found and found.event and found.event.event_id == cause.event_id else None


async def receivers_of(reader: HistoryReader, notice_id: str, user: str | None = None) -> list[Receiver]:
    """Who has this notice, from the whole of `notices`, or of one user's partition of it. KafkaError."""
    spots = reader.spots([NOTICES]) if user is None else [_spot(reader, NOTICES, user)]
    wanted, found = notice_id.encode(), dict[str, int]()
    async for record in reader.scan(await reader.starts(spots), lambda m: wanted in (m.value or b"")):
        event = record.event if isinstance(record, Record) else None
        if isinstance(event, NoticeRaised | Due | Decided) and event.notice_id == notice_id:
            found.setdefault(event.user, record.offset)
    return [Receiver(u, o) for u, o in found.items() if user in (None, u)]


async def evidence_of(reader: HistoryReader, notice_id: str, receiver: Receiver) -> Evidence:
    """What was said of one receiver's notice, and why. KafkaError."""
    found, user = Evidence(), receiver.user.encode()
    named = {notice_id: notice_id.encode()}

    def mine(message: Any) -> bool:
        value = message.value or b""
        return message.key == user and (
            any(name in value for name in named.values()) or event_name(value) == NoticeMarked.__name__
        )

    spot = _spot(reader, NOTICES, receiver.user)
    async for record in reader.scan({spot: receiver.offset}, mine):
        if isinstance(record, Record) and _matters(record, notice_id, named):
            found.notices.append(record)
            if (digest := _digest(record, notice_id)) and len(named) < FOLLOWED:
                named[digest] = digest.encode()
    if not found.notices:
        return found
    there = _spot(reader, DELIVERIES, receiver.user)
    starts = await reader.at_time([there], found.notices[0].timestamp)
    wanted = tuple(named.values())
    async for record in reader.scan(starts, lambda m: m.key == user and any(n in (m.value or b"") for n in wanted)):
        if isinstance(record, Record) and _matters(record, notice_id, named):
            found.deliveries.append(record)
    await _follow(reader, notice_id, found)
    return found


async def _follow(reader: HistoryReader, notice_id: str, found: Evidence) -> None:
    """From the notice to the commits and requests, and from these to the run, the config and the entity."""
    said = [
        cause
        for r in found.notices
        if isinstance(e := r.event, NoticeRaised | NoticeUpdated | NoticeEnded) and e.notice_id == notice_id
        for cause in e.caused_by
    ]
    await look_up(reader, found, said[: FOLLOWED // 2] + said[FOLLOWED // 2 :][-FOLLOWED // 2 :])
    deeper: list[Cause] = []
    for record in list(found.causes.values()):
        if not isinstance(commit := record.event, AlertCommitted):
            continue
        deeper.append(Cause("", NOTICE_REQUESTS, record.partition, commit.run))
        effects = effects_of(commit, notice_id)
        if not effects:
            effects = await _earlier_part(reader, found, record, commit, notice_id)
        deeper += [cause for effect in effects for cause in effect.caused_by]
    await look_up(reader, found, deeper)


async def _earlier_part(
    reader: HistoryReader, found: Evidence, last: Record, commit: AlertCommitted, notice_id: str
) -> list[Effect]:
    """A commit that was too large for one record stands in several; only the last one is named as the cause."""
    wanted, spot = notice_id.encode(), Spot(last.topic, last.partition)
    start = max(commit.run, last.offset - PARTS_BACK)
    async for record in reader.scan({spot: start}, lambda m: m.offset < last.offset and wanted in (m.value or b"")):
        if not isinstance(record, Record) or not isinstance(event := record.event, AlertCommitted):
            continue
        if (event.run, event.more) == (commit.run, True):
            found.causes[*spot, record.offset] = record
            return effects_of(event, notice_id)
    return []


async def look_up(reader: HistoryReader, found: Evidence, causes: Iterable[Cause]) -> None:
    """Add the records that these causes name, as far as they are still kept."""
    known, wanted = set(reader.spots(reader.topics)), defaultdict[Spot, set[int]](set)
    for cause in causes:
        if (spot := Spot(cause.topic, cause.partition)) in known and (*spot, cause.offset) not in found.causes:
            wanted[spot].add(cause.offset)
    for spot, offsets in wanted.items():
        for offset, record in (await reader.at(spot, offsets)).items():
            if isinstance(record, Record):
                found.causes[*spot, offset] = record


def effects_of(commit: AlertCommitted, notice_id: str) -> list[Effect]:
    """What a commit says of a notice."""
    return [effect for effect in commit.effects if effect.notice_id == notice_id]


def _matters(record: Record, notice_id: str, named: Container[str]) -> bool:
    """Whether it is about this notice, or one of its digests; what only mentions them is left."""
    event = record.event
    if isinstance(event, NoticeMarked):
        return event.up_to is not None or notice_id in event.ids
    return getattr(event, "notice_id", None) in named


def _digest(record: Record, notice_id: str) -> str:
    """The digest that a decision puts this notice into; empty for none."""
    event = record.event
    if not isinstance(event, Decided) or event.notice_id != notice_id or event.body_key is not None:
        return ""
    try:
        said = json.loads(event.body)
    except (ValueError, RecursionError):
        return ""
    named = said.get("digest") if isinstance(said, dict) else None
    return named if isinstance(named, str) else ""


def _spot(reader: HistoryReader, topic: str, user: str) -> Spot:
    return Spot(topic, partition_of(user, len(reader.spots([topic]))))
