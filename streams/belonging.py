"""Whether the rows belong to this log (rule 7).

Epoch, end and trail of each position are compared with what stands there. Any difference, and all rows are
rebuilt: only the sources can say what was lost.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from typing import Any

from projections.sql import positions
from projections.sql.commands import forget_commands
from projections.sql.commit import name_of
from projections.sql.store import Store, wipe
from topics.catalogue import NOTICES, Catalogue
from topics.fetch import LogReader, Spot

log = logging.getLogger(__name__)

RECENT_MARKS = 150


async def difference(
    store: Store, reader: LogReader, catalogue: Catalogue, spots: Iterable[Spot], epochs: dict[Spot, str]
) -> str:
    """The first thing that shows that the rows come from another log, in words; empty if there is none."""
    known = await asyncio.to_thread(_trails, store)
    spots = [s for s in spots if s in known]
    ends, starts = await reader.ends(spots), await reader.starts(spots)
    topics = catalogue.topics()
    for spot in spots:
        epoch, at, marks = known[spot]
        where = f"{spot.topic}/{spot.partition}"
        if epoch and epochs.get(spot) and epoch != epochs[spot]:
            return f"{where} was made anew"
        if at > ends[spot]:
            return f"{where} ends at {ends[spot]}, the rows are at {at}"
        topic = topics[spot.topic]
        if topic.compacted and topic.keep_ms and 0 < at < ends[spot]:
            unread = await first_from(reader, spot, at)
            if unread is not None and (unread.offset != at or time.time() * 1000 - unread.timestamp > topic.keep_ms):
                return f"{where} has waited longer than its compaction lag: what came between may be gone"
        for offset, event_id, _ in marks[:RECENT_MARKS]:
            if offset < starts[spot]:
                continue
            found = await _name_at(reader, spot, offset, ends[spot])
            if found is None and topic.compacted:
                continue
            if found != event_id:
                return f"{where} has another record at {offset} than the one that was folded"
    return ""


def rebuild(store: Store, why: str) -> None:
    """All rows go; the log fills them again."""
    log.error("the rows belong to another log and are rebuilt reason=%r", why)
    with store.writing() as tx:
        wipe(tx)


def thin(store: Store, spots: Iterable[Spot]) -> None:
    """Forget what of the trail, and which commands, are no longer needed; a bounded part of them at a time."""
    with store.writing() as tx:
        for spot in spots:
            positions.thin(tx, spot, int(time.time() * 1000))
            if spot.topic == NOTICES:
                forget_commands(tx, spot)


def _trails(store: Store) -> dict[Spot, tuple[str, int, list[tuple[int, str, int]]]]:
    with store.reading() as tx:
        return positions.trails(tx)


async def _name_at(reader: LogReader, spot: Spot, offset: int, end: int) -> str | None:
    """What names the record at `offset`; null if it is gone."""
    if offset >= end:
        return ""
    message = await first_from(reader, spot, offset)
    return name_of(await reader.item(message)) if message is not None and message.offset == offset else None


async def first_from(reader: LogReader, spot: Spot, offset: int) -> Any:
    """The first message that is still there from `offset` on; null if there is none."""
    await reader.seek({spot: offset})
    end = (await reader.ends([spot]))[spot]
    while await reader.position(spot) < end:
        for message in await reader.poll(500, limit=1):
            return message
    return None
