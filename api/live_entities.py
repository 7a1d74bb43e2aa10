"""The current entities of one type in the gateway's memory, and who watches them.

A snapshot is taken from this memory at the reader's own position, so what follows it is exactly what the reader reads
next. Superseded versions are kept for a while: they tell a resuming client with an enforced filter which ids it may
be told have left.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from api.expand import Expansion, Version
from api.expand_lane import Lane, Told
from api.expand_line import Fetch
from api.filters import Filter
from api.frames import Frame, push, quoted, when
from api.settings import Limits
from projections.outgoing import Refused
from projections.sql.truths import entity_row
from projections.sql.views.entities import EntityRow
from topics.events import EntityChanged, Record, TopicOpened

log = logging.getLogger(__name__)
YIELD_AFTER = 200
UNKNOWN = object()


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


class Watcher:
    """One subscription's end: frames are held back while its snapshot or replay goes out, and shared afterwards."""

    def __init__(
        self,
        write: Callable[[Frame], None],
        overrun: Callable[[], None],
        wanted: Filter | None,
        most_held: int,
        expansion: Expansion | None = None,
    ) -> None:
        self._write, self.overrun, self._most = write, overrun, most_held
        self.wanted, self.expansion = wanted, expansion
        self.held: deque[Frame] | None = deque()
        self.joined_at = 0
        self.told_at = 0

    def tell(self, frame: Frame, count: int) -> None:
        """A shared frame."""
        self.told_at = count
        if self.held is None:
            self._write(frame)
        elif len(self.held) < self._most:
            self.held.append(frame)
        else:
            self.overrun()

    @property
    def group(self) -> Hashable:
        """Those with equal ones are told the same."""
        name = self.wanted.name if self.wanted else ""
        if self.expansion is None:
            return name
        return name, self.expansion.name or id(self)


@dataclass(slots=True)
class _Group:
    """Those with equal filters and expansions: a frame is built once for all of them."""

    wanted: Filter | None
    expansion: Expansion | None = None
    lane: Lane | None = None  # what is fetched comes later, in a task of its own
    watchers: set[Watcher] = field(default_factory=set)

    def close(self) -> None:
        """Nobody is told anything any more."""
        if self.lane is not None:
            self.lane.stop()


class LiveEntities:
    """`token` gives the reader's position over all partitions of this type."""

    def __init__(self, entity_type: str, limits: Limits, token: Callable[[], str], broken: Callable[[], None]) -> None:
        self.entity_type, self.channel = entity_type, f"entities/{entity_type}"
        self._limits, self._token, self._broken = limits, token, broken
        self.entities: dict[str, Entity] = {}
        self._ids: list[str] | None = None
        self._groups: dict[Hashable, _Group] = {}
        self._history: deque[tuple[int, int, Entity | None]] = deque()
        self._before: dict[tuple[int, int], Entity | None] = {}
        self._history_bytes = 0
        self.base: dict[int, int] = {}
        self.count = self._told = 0

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
        self.base = dict(base)

    def forget(self) -> None:
        """Everything is loaded anew; the connections are closed by whoever says so."""
        for group in self._groups.values():
            group.close()
        self.entities, self._ids, self._groups = {}, None, {}
        self._history.clear()
        self._before.clear()
        self._history_bytes = 0

    async def take(self, record: Record) -> None:
        """Fold one record and tell everybody who watches."""
        self.count += 1
        change = self._fold(record)
        if change is not None:
            await self._tell(change)
        if self.count % max(1, self._limits.resume // 6) == 0:
            self._keep_fresh()

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
        self._remember(record.partition, record.offset, change.before)
        return change

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

    def _remember(self, partition: int, offset: int, before: Entity | None) -> None:
        self._history.append((partition, offset, before))
        self._before[partition, offset] = before
        self._history_bytes += len(before.body) if before else 0
        while len(self._history) > self._limits.resume or self._history_bytes > self._limits.history_bytes:
            p, o, old = self._history.popleft()
            del self._before[p, o]
            self._history_bytes -= len(old.body) if old else 0
            self.base[p] = o + 1

    def before(self, partition: int, offset: int) -> Any:
        """The version that the record at this offset replaced, or UNKNOWN."""
        return self._before.get((partition, offset), UNKNOWN)

    # ---- those who watch
    def join(self, watcher: Watcher) -> None:
        """From the next record on it is told."""
        watcher.joined_at = watcher.told_at = self.count
        group = self._groups.get(watcher.group)
        if group is None:
            group = self._groups[watcher.group] = _Group(watcher.wanted, watcher.expansion)
            if watcher.expansion is not None:
                ahead, most = watcher.expansion.ahead, self._limits.expand_waiting
                group.lane = Lane(self.channel, ahead, most, partial(self._hand_out, group))
        group.watchers.add(watcher)

    def leave(self, watcher: Watcher) -> None:
        """It is told no more."""
        group = self._groups.get(watcher.group)
        if group is not None and watcher in group.watchers:
            group.watchers.discard(watcher)
            if not group.watchers:
                del self._groups[watcher.group]
                group.close()

    def fetch(self, expansion: Expansion, shown: Entity) -> Fetch:
        """Asks the backend for an entity: what it says now, so it is asked once for all versions up to the newest."""
        entity_id, partition, offset = shown.id, shown.partition, shown.offset  # its body need not wait, too

        async def fetched() -> str:
            newest = self.entities.get(entity_id)
            spot = (newest.partition, newest.offset) if newest else (partition, offset)
            return await expansion.members(Version(self.entity_type, entity_id, *spot))

        return fetched

    async def _tell(self, change: Change) -> None:
        count, position = self.count, self._token() if self._groups else ""
        for group in list(self._groups.values()):
            if group.lane is not None:
                news = change.news(self.entity_type, group.wanted)
                if news is not None:
                    self._later(group, group.lane, Told(position, news[0], count), news[1])
                continue
            frame = change.frame(self.channel, self.entity_type, position, group.wanted)
            if frame is not None:
                await self._hand_out(group, frame, count)

    async def _hand_out(self, group: _Group, frame: Frame, count: int) -> None:
        for watcher in list(group.watchers):
            if watcher in group.watchers and watcher.joined_at < count:  # whoever joined meanwhile has it already
                watcher.tell(frame, count)
            self._told += 1
            if self._told % YIELD_AFTER == 0:
                await asyncio.sleep(0)  # or handshakes and pongs starve

    def _later(self, group: _Group, lane: Lane, waiting: Told, shown: Entity | None) -> None:
        fetch = self.fetch(group.expansion, shown) if group.expansion is not None and shown is not None else None
        if lane.add(waiting, fetch):
            return
        group.close()
        self._groups = {name: kept for name, kept in self._groups.items() if kept is not group}
        for watcher in list(group.watchers):
            watcher.overrun()

    def _keep_fresh(self) -> None:
        """An idle client's token must stay young enough to resume from."""
        frame = None
        for group in list(self._groups.values()):
            idle = [w for w in group.watchers if self.count - w.told_at >= self._limits.resume // 6]
            if idle and group.lane is not None:
                self._later(group, group.lane, Told(self._token(), "", self.count), None)  # or it overtakes what waits
                continue
            for watcher in idle:
                frame = frame or push(self.channel, self._token())
                watcher.tell(frame, self.count)

    # ---- lists
    def page(self, wanted: Filter | None, after: str, limit: int) -> tuple[list[Entity], bool]:
        """At most `limit` matching entities with ids after `after`, in the order of ids; whether there are more."""
        if self._ids is None:
            self._ids = sorted(self.entities)
        found: list[Entity] = []
        for i in range(bisect_right(self._ids, after) if after else 0, len(self._ids)):
            entity = self.entities[self._ids[i]]
            if _matches(wanted, entity):
                if len(found) == limit:
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
