"""The current entities of one type in the gateway's memory, and who watches them.

A snapshot is taken from this memory at the reader's own position, so what follows it is exactly what the reader reads
next. Superseded versions are kept for a while: they tell a resuming client with an enforced filter which ids it may
be told have left.
"""

from __future__ import annotations

import json
import logging
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from api.expand.expansion import SUPERSEDED, Expansion, Version
from api.expand.lane import Lane, Told
from api.expand.line import Fetch
from api.live.fan_out import FanOut, Group, Watcher
from api.live.filters import Filter
from api.live.frames import Frame, push, quoted, when
from api.live.tail import UNKNOWN, Entry, Tail
from api.metrics import Metrics
from api.settings import Limits
from projections.outgoing import Refused
from projections.sql.truths import entity_row
from projections.sql.views.entities import EntityRow
from topics.catalogue import entity_topic
from topics.events import EntityChanged, Record, TopicOpened

log = logging.getLogger(__name__)


class Entity:
    """One version of an entity: `body` is its JSON text, read only when a filter asks."""

    __slots__ = ("_parsed", "at", "body", "id", "offset", "partition", "version")

    def __init__(self, row: EntityRow) -> None:
        self.id, self.partition, self.offset, self.version, self.at = (
            row.id,
            row.partition,
            row.offset,
            row.version,
            row.at,
        )
        self.body = row.body
        self._parsed: Any = UNKNOWN

    @property
    def parsed(self) -> Any:
        """The body's value, for filters."""
        if self._parsed is UNKNOWN:
            self._parsed = orjson.loads(self.body)
        return self._parsed

    def spare(self) -> None:
        """It is superseded: its value is not looked at often any more."""
        self._parsed = UNKNOWN

    def text(self, entity_type: str) -> str:
        """As snapshots and lists show it."""
        return f'{{{self.head(entity_type)},"entity":{self.body}}}'

    def head(self, entity_type: str) -> str:
        """What is said of it beside its body, as JSON members."""
        return f'"type":{quoted(entity_type)},"id":{quoted(self.id)},"version":{self.version},"at":{when(self.at)}'


@dataclass(slots=True)
class Change:
    """One record: the versions before (UNKNOWN when this gateway never had it) and after."""

    id: str
    op: str
    version: int
    at: int
    before: Any
    after: Entity | None

    def frame(self, channel: str, entity_type: str, position: str, wanted: Filter | None) -> Frame | None:
        """What a subscriber with this filter is told; null if it is no news there."""
        news = self.news(entity_type, wanted)
        if news is None:
            return None
        return told(channel, position, *news)

    def news(self, entity_type: str, wanted: Filter | None) -> tuple[str, Entity | None] | None:
        """The JSON text of `event`, and the version to be shown with it."""
        if self.after is not None and _matches(wanted, self.after):
            return f'"event":{{"op":"{self.op}",{self._named(entity_type)}}}', self.after
        if self.before is None or (self.before is not UNKNOWN and not _matches(wanted, self.before)):
            return None
        if self.after is None:
            return f'"event":{{"op":"deleted",{self._named(entity_type)}}}', None
        return f'"event":{{"op":"left","type":{quoted(entity_type)},"id":{quoted(self.id)}}}', None

    def _named(self, entity_type: str) -> str:
        return f'"type":{quoted(entity_type)},"id":{quoted(self.id)},"version":{self.version},"at":{when(self.at)}'


def told(channel: str, position: str, event: str, shown: Entity | None) -> Frame:
    """A push with what the log has."""
    return push(channel, position, event if shown is None else f'{event},"entity":{shown.body}')


class LiveEntities:
    """`token` gives the reader's position over all partitions of this type."""

    def __init__(self, entity_type: str, limits: Limits, token: Callable[[], str], metrics: Metrics) -> None:
        self.entity_type, self.channel = entity_type, f"entities/{entity_type}"
        self._limits, self._token = limits, token
        self._fresh = max(1, limits.resume // 6)
        self._broken = metrics.broken.labels(entity_topic(entity_type)).inc
        self.entities: dict[str, Entity] = {}
        self._ids: list[str] | None = None
        self._fan_out = FanOut(metrics)
        self.tail = Tail(limits.resume, limits.history_bytes, self.frame)
        self.count = 0

    # ---- the fold
    def begin(self, rows: Iterable[EntityRow], base: dict[int, int]) -> None:
        """Start from the rows at these positions."""
        self.forget()
        for row in rows:
            try:
                self.entities[row.id] = Entity(row._replace(body=strict(row.body)))
            except (ValueError, RecursionError) as error:  # as `change`: one row must not keep the gateway down
                self._broken()
                where = f"type={self.entity_type} partition={row.partition} offset={row.offset}"
                log.warning("no entity %s error=%s", where, type(error).__name__)
        self.tail.begin(base)

    def forget(self) -> None:
        """Everything is loaded anew; the connections are closed by whoever says so."""
        self._fan_out.clear()
        self.entities, self._ids = {}, None
        self.tail.begin({})

    async def take(self, record: Record) -> None:
        """Fold one record and tell everybody who watches."""
        self.count += 1
        change = self._fold(record)
        if change is not None:
            self._tell(change, record.timestamp)
            if change.before is not None:
                change.before.spare()
        if self.count % self._fresh == 0:
            self._keep_fresh()
        await self._fan_out.room()

    def _fold(self, record: Record) -> Change | None:
        change = self.change(record, self.entities.get(record.key))
        if change is None:
            return None
        if (change.before is None) != (change.after is None):
            self._ids = None
        if change.after is None:
            self.entities.pop(change.id, None)
        else:
            self.entities[change.id] = change.after
        self.tail.append(Entry(record.partition, record.offset, self._token(), change))
        return change

    def frame(self, change: Change, position: str, wanted: Filter | None) -> Frame | None:
        """What whoever has this filter is told of a change; null if it is no news there."""
        return change.frame(self.channel, self.entity_type, position, wanted)

    def change(self, record: Record, before: Any) -> Change | None:
        """What a record did to an entity that was `before`; null for what is no entity."""
        event = record.event
        if isinstance(event, TopicOpened):
            return None
        try:
            (_, entity_id), row = entity_row(record)
            body = strict(row["body"]) if row else ""
        except (Refused, ValueError, RecursionError) as error:
            self._broken()
            where = f"topic={record.topic} partition={record.partition} offset={record.offset}"
            log.warning("no entity %s error=%s", where, type(error).__name__)
            return None
        if row is None:
            version = event.version if isinstance(event, EntityChanged) and event.version is not None else record.offset
            at = event.at if isinstance(event, EntityChanged) and event.at is not None else record.timestamp
            return Change(entity_id, "deleted", version, at, before, None)
        made = Entity(EntityRow(entity_id, record.partition, record.offset, row["version"], row["at"], body))
        return Change(entity_id, row["op"], made.version, made.at, before, made)

    # ---- those who watch
    def join(self, watcher: Watcher) -> None:
        """From the next record on it is told."""
        self._fan_out.join(watcher, self.count, self._lane)

    def leave(self, watcher: Watcher) -> None:
        """It is told no more."""
        self._fan_out.leave(watcher)

    def _lane(self, group: Group, expansion: Expansion) -> Lane:
        async def tell(frame: Frame, number: int) -> None:
            self._fan_out.tell(group, frame, number)
            await self._fan_out.room()

        return Lane(self.channel, expansion.ahead, self._limits.expand_waiting, tell)

    def fetch(self, expansion: Expansion, shown: Entity, wanted: Filter | None) -> Fetch:
        """Asks the backend for an entity: what it says now, so it is asked once for all versions up to the newest, and
        only where that one may be seen.
        """
        entity_id = shown.id  # its body need not wait, too

        def visible() -> Entity | None:
            newest = self.entities.get(entity_id)
            return newest if newest is not None and _matches(wanted, newest) else None

        async def fetched() -> str:
            if (newest := visible()) is None:
                return SUPERSEDED
            members = await expansion.members(Version(self.entity_type, entity_id, newest.partition, newest.offset))
            return members if visible() is not None else SUPERSEDED

        return fetched

    def _tell(self, change: Change, stamp: int) -> None:
        position = self.tail.position
        frames: dict[tuple[str, Entity | None], Frame] = {}
        for group in list(self._fan_out.groups.values()):
            news = change.news(self.entity_type, group.wanted)
            if news is None:
                continue
            if group.lane is not None:
                self._later(group, group.lane, Told(position, news[0], self.count), news[1])
                continue
            if news not in frames:
                frames[news] = told(self.channel, position, *news)
            self._fan_out.tell(group, frames[news], self.count, stamp)

    def _later(self, group: Group, lane: Lane, waiting: Told, shown: Entity | None) -> None:
        fetch = self.fetch(group.expansion, shown, group.wanted) if group.expansion and shown else None
        if lane.add(waiting, fetch):
            return
        self._fan_out.drop(group)
        for watcher in list(group.watchers):
            watcher.overrun()

    def _keep_fresh(self) -> None:
        """An idle client's token must stay young enough to resume from."""
        for group in list(self._fan_out.groups.values()):
            if self.count - group.told_at < self._fresh:
                continue
            if group.lane is not None:
                group.told_at = self.count
                self._later(group, group.lane, Told(self._token(), "", self.count), None)  # or it overtakes what waits
            else:
                self._fan_out.tell(group, push(self.channel, self._token()), self.count)

    # ---- lists
    def page(self, wanted: Filter | None, after: str, limit: int) -> tuple[list[Entity], bool]:
        """At most `limit` matching entities with ids after `after`, in the order of ids, and of them no more than are
        shown at once; whether there are more.
        """
        if self._ids is None:
            self._ids = sorted(self.entities)
        found: list[Entity] = []
        size = 0
        for i in range(bisect_right(self._ids, after) if after else 0, len(self._ids)):
            entity = self.entities[self._ids[i]]
            if _matches(wanted, entity):
                size += len(entity.body)
                if len(found) == limit or (found and size > self._limits.snapshot_bytes):
                    return found, True
                found.append(entity)
        return found, False


def strict(text: str) -> str:
    """JSON that every browser reads: what only Python takes (NaN, half surrogate pairs) would break a frame.

    ValueError or RecursionError, and nothing else, for what can't be mended.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = _mended(json.loads(text, parse_constant=lambda _: None))
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)  # orjson writes no more than 254 levels
    if not isinstance(value, dict):
        text = f'{{"value":{text}}}'
    orjson.loads(text)  # filters read it so
    return text


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, list):
        return [_mended(v) for v in value]
    if isinstance(value, dict):
        return {_mended(k): _mended(v) for k, v in value.items()}
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _matches(wanted: Filter | None, entity: Entity) -> bool:
    return wanted is None or wanted.matches(entity.parsed)
