"""Why somebody was not told: what a request's name stands for on the log, what the fold made of it, and, where the user
was told after all, what became of that notice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from projections.explain import Story, story
from projections.untold import Inquiry, Verdict
from topics.catalogue import DEAD_LETTERS, NOTICE_REQUESTS, NOTICES
from topics.dead_letters import DeadLetter
from topics.events import AlertCommitted, Cause, Effect, NoticeRaised, NoticeRequested, Record
from topics.evidence import Receiver, evidence_of, receivers_of
from topics.fetch import Spot
from topics.ids import direct_notice_id
from topics.read import HistoryReader

_PLACE = re.compile(r"(?P<topic>[^\[\]]+?)(?:\[(?P<p>\d+)\]@(?P<o>\d+)|/(?P<p2>\d+)/(?P<o2>\d+))")
MOST = 20  # requests that one name may stand for


@dataclass(slots=True)
class Findings:
    """`about`: what stands at a place that was named. `verdicts` in the log's order; `stories` of what the user has.

    `unfolded`: notices that the user is to have and that are not on the log yet. `told`: who has it straight from its
    sender. `dead`: place to reason of dead letters. `nowhere`: the log knows nothing of that name.
    """

    about: Record | None = None
    verdicts: list[Verdict] = field(default_factory=list)
    stories: list[Story] = field(default_factory=list)
    unfolded: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    dead: dict[str, str] = field(default_factory=dict)
    nowhere: bool = False


async def inquire(reader: HistoryReader, user: str, request: str, subject: str) -> Findings:
    """What the log says. `request`: a place, or an id; `subject`: whose request key it is if it is one. KafkaError."""
    found, name = Findings(), request
    if (place := _place(reader, request)) is not None:
        spot, offset = place
        record = (await reader.at(spot, [offset])).get(offset)
        await _dead(reader, found, spot, offset)
        if not isinstance(record, Record) or record.event is None:
            found.nowhere = not found.dead
            return found
        found.about, name = record, record.event.event_id
    targets = await _targets(reader, name)
    if not targets:
        targets = await _through_notices(reader, found, name)
    keys = {(Spot(t.topic, t.partition), t.key) for t in targets}
    places = {(t.partition, t.offset) for t in targets}
    for spot, key in sorted(keys):
        found.verdicts += await _verdicts(reader, user, spot, key, places, name)
    for partition, offset in sorted(places):
        await _dead(reader, found, Spot(NOTICE_REQUESTS, partition), offset)
    ids = {v.notice_id for v in found.verdicts if v.notice_id}
    straight = direct_notice_id(subject, name, user)
    for notice_id in [*sorted(ids), *({straight, name} - ids)]:
        receivers = await receivers_of(reader, notice_id, user)
        if receivers:
            told = story(user, notice_id, await evidence_of(reader, notice_id, Receiver(user, receivers[0].offset)))
            found.stories += [told] if told else []
        elif notice_id in ids:
            found.unfolded.append(notice_id)
    found.nowhere = not (found.verdicts or found.stories or found.told or found.about or found.dead)
    return found


async def _targets(reader: HistoryReader, name: str) -> list[Record]:
    """The requests and commits that a name stands for."""
    wanted, found = name.encode(), list[Record]()
    starts = await reader.starts(reader.spots([NOTICE_REQUESTS]))
    async for record in reader.scan(starts, lambda m: wanted in (m.value or b"")):
        if isinstance(record, Record) and _names(record, name) and len(found) < MOST:
            found.append(record)
    return found


async def _through_notices(reader: HistoryReader, found: Findings, name: str) -> list[Record]:
    """A notice's own name leads to its request; what took the short cut leads only to those who have it."""
    wanted, causes = name.encode(), list[Cause]()
    starts = await reader.starts(reader.spots([NOTICES]))
    async for record in reader.scan(starts, lambda m: wanted in (m.value or b"")):
        e = record.event if isinstance(record, Record) else None
        if isinstance(e, NoticeRaised) and name in (e.notice_id, e.event_id):
            found.told += [] if e.caused_by else [e.user]
            causes += e.caused_by
    targets = []
    for cause in dict.fromkeys(c for c in causes if c.topic == NOTICE_REQUESTS):
        there = (await reader.at(Spot(cause.topic, cause.partition), [cause.offset])).get(cause.offset)
        targets += [there] if isinstance(there, Record) else []
    return targets


async def _verdicts(
    reader: HistoryReader, user: str, spot: Spot, key: str, places: set[tuple[int, int]], name: str
) -> list[Verdict]:
    def wanted(record: Record, effect: Effect | None) -> bool:
        if (record.partition, record.offset) not in places:
            return False
        named = [e for e in record.event.effects if _about(e, name)] if isinstance(record.event, AlertCommitted) else []
        return effect is None or not named or effect in named

    inquiry, found, key_bytes = Inquiry(user, wanted), list[Verdict](), key.encode()
    start = (await reader.starts([spot]))[spot]
    after = 1 + max(offset for partition, offset in places if partition == spot.partition)
    end = (await reader.ends([spot]))[spot]
    for begin, stop in ((start, after), (after, end)):  # the second for the last part of a commit, if it was split
        if begin == start or inquiry.pending:
            async for record in reader.scan({spot: begin}, lambda m: m.key == key_bytes, {spot: stop}):
                found += inquiry.take(record) if isinstance(record, Record) else []
    return found


async def _dead(reader: HistoryReader, found: Findings, spot: Spot, offset: int) -> None:
    starts, at = await reader.starts(reader.spots([DEAD_LETTERS])), (spot.topic, spot.partition, offset)
    async for item in reader.scan(starts, lambda m: ("offset", str(offset).encode()) in (m.headers or ())):
        if isinstance(item, DeadLetter) and (item.source_topic, item.source_partition, item.source_offset) == at:
            found.dead[f"{spot.topic}[{spot.partition}]@{offset}"] = item.reason
            return


def _names(record: Record, name: str) -> bool:
    match record.event:
        case AlertCommitted() as e:
            return e.event_id == name or any(_about(x, name) for x in e.effects)
        case NoticeRequested() as e:
            return name in (e.event_id, e.request_key)
    return record.event is not None and record.event.event_id == name


def _about(effect: Effect, name: str) -> bool:
    return effect.notice_id == name or any(c.event_id == name for c in effect.caused_by)


def _place(reader: HistoryReader, text: str) -> tuple[Spot, int] | None:
    found = _PLACE.fullmatch(text)
    if found is None or found["topic"] not in reader.topics:
        return None
    spot = Spot(found["topic"], int(found["p"] or found["p2"]))
    return (spot, int(found["o"] or found["o2"])) if spot in reader.spots([spot.topic]) else None
