"""A subscription to `entities/<type>`: snapshot or replay, then what came meanwhile, until it shares everybody's
frames.

All that is this client's own goes at the pace of its reading; only shared frames can cut a slow reader off.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from api.expand.expansion import Expansion
from api.expand.lane import expanded
from api.expand.line import Line
from api.live.connection import Connection
from api.live.entities import Entity, LiveEntities, told
from api.live.fan_out import Watcher
from api.live.filters import Filter
from api.live.frames import answer_text, quoted
from api.live.protocol import Subscribe
from api.live.tail import UNKNOWN, Since, read_back
from api.problems import Problem
from api.settings import Limits
from topics.catalogue import entity_topic
from topics.events import Record
from topics.fetch import Spot

if TYPE_CHECKING:
    from api.gateway import Gateway


async def settle(watcher: Watcher, connection: Connection) -> None:
    """Hand out what was held back, at the client's pace; from then on it shares the frames of all."""
    while watcher.held:
        watcher.release()
        if not watcher.held or len(watcher.held) % 16 == 0:
            await connection.drained()
    watcher.held = None


class EntitySubscription:
    """One client on `entities/<type>`."""

    def __init__(
        self,
        gateway: Gateway,
        connection: Connection,
        request_id: int | str | None,
        asked: Subscribe,
        *,
        live: LiveEntities,
        wanted: Filter | None,
        enforced: bool,
        expansion: Expansion | None = None,
    ) -> None:
        self._gateway, self._connection, self._request_id, self._asked = gateway, connection, request_id, asked
        self._live, self._wanted, self._enforced = live, wanted, enforced
        self._topic = entity_topic(live.entity_type)
        self._fresh = max(1, gateway.settings.limits.resume // 3)
        self._expansion = expansion
        self._line: Line[tuple[str, str]] = Line(expansion.ahead if expansion else 1)
        overrun = connection.cut_off if expansion is None else self._too_slow
        self.watcher = Watcher(connection, wanted, gateway.settings.limits.held_bytes, expansion, overrun)
        self.task: asyncio.Task[None] | None = None
        self.answered = False

    def stop(self) -> None:
        """Watch no longer."""
        self._live.leave(self.watcher)
        self._line.clear()
        if self.task is not None:
            self.task.cancel()

    async def run(self) -> None:
        """Snapshot or replay, then the frames of all."""
        if not await self._gateway.started(self._gateway.settings.limits.wait):
            raise Problem("not_ready")
        if self._asked.since is not None:
            await self._resume(self._asked.since)
        else:
            await self._begin()
        await settle(self.watcher, self._connection)

    async def _begin(self) -> None:
        """The memory and the reader's position in one step, then page after page."""
        log = self._gateway.live
        token = log.token(self._topic, log.vector(self._topic))
        rows = list(self._live.entities.values()) if self._asked.snapshot else []
        self._live.join(self.watcher)
        pages = _pages(self._texts(rows), self._gateway.settings.limits)
        waiting: str | None = None
        async for page in pages:
            if waiting is not None:
                self._answer(f'"channel":{quoted(self._asked.channel)},"snapshot":[{waiting}],"more":true')
                if not await self._connection.drained():
                    return
            waiting = page
        snapshot = f',"snapshot":[{waiting or ""}]' if self._asked.snapshot else ""
        self._answer(f'"channel":{quoted(self._asked.channel)},"position":"{token}"{snapshot}', token)

    async def _texts(self, rows: Sequence[Entity]) -> AsyncIterator[str]:
        if self._expansion is None:
            async for entity in self._matching(rows):
                yield entity.text(self._live.entity_type)
            return
        async for entity in self._matching(rows):
            fetch = self._live.fetch(self._expansion, entity, self._wanted)
            self._line.put(("", entity.head(self._live.entity_type)), fetch)
            if self._line.full:
                yield await self._next_row()
        while self._line:
            yield await self._next_row()

    async def _next_row(self) -> str:
        (_, head), members = await self._line.next()
        return f"{{{head},{members}}}"

    async def _matching(self, rows: Sequence[Entity]) -> AsyncIterator[Entity]:
        for i, entity in enumerate(rows):
            if i % 1_000 == 999:
                await asyncio.sleep(0)
            if self._wanted is None or self._wanted.matches(entity.parsed):
                yield entity

    async def _resume(self, since: str) -> None:
        """Replay from the token to where the reader is, with tokens of this client's own."""
        log = self._gateway.live
        _, position = log.understood(since, (self._topic,))
        if not await log.passes(self._topic, position.next, self._gateway.settings.limits.wait):
            raise Problem("behind", "This gateway has not read that far yet.")
        end, tail = log.vector(self._topic), self._live.tail
        at = {p: position.next.get(p, 0) for p in end}
        if sum(end[p] - at[p] for p in end) > self._gateway.settings.limits.resume:
            raise Problem("position_lost", "The position lies too far back.", reason="too_far")
        if self._enforced and not tail.knows(at):
            told = "Which versions this token was allowed to see then is not known here."
            raise Problem("position_lost", told, reason="versions_unknown")
        if not tail.reaches(at):
            with log_away():
                await read_back(self._live, log, self._gateway.ranges, at)
        # From here to `join` nothing else happens.
        end, here = log.vector(self._topic), tail.since(at) if tail.reaches(at) else None
        self._live.join(self.watcher)
        self._gateway.metrics.resumes.labels("entities", "from_log" if here is None else "from_memory").inc()
        self._answer(f'"channel":{quoted(self._asked.channel)},"position":"{since}","resumed":true', since)
        if here is not None:
            await self._repeat(here, at, end)
            return
        with log_away():
            await self._replay(at, end)

    async def _repeat(self, here: list[Since], at: dict[int, int], end: dict[int, int]) -> None:
        """From memory: frames that others had, too, as soon as their tokens are the same."""
        log, quiet = self._gateway.live, 0
        said: str | None = log.token(self._topic, at)
        for i, (_, entry, shared) in enumerate(here):
            if shared and self._expansion is None and len(here) < self._fresh:
                for batch in self._live.tail.batches(here[i:], self._wanted):
                    said = batch.frames[-1].position
                    self._connection.write(batch)
                    if not await self._connection.drained():
                        return
                break
            at[entry.partition] = entry.offset + 1
            position = entry.position if shared else log.token(self._topic, at)
            news, quiet = entry.change.news(self._live.entity_type, self._wanted), quiet + 1
            if news is None and quiet >= self._fresh:
                news = "", None
            if news is not None:
                quiet, said = 0, position
                if not await self._tell(position, *news):
                    return
        if said != (last := log.token(self._topic, end)) and not await self._tell(last, "", None):
            return
        while self._line and await self._tell_next():
            pass

    async def _replay(self, at: dict[int, int], end: dict[int, int]) -> None:
        """From the log: what is too much to be kept for others."""
        log, quiet, said = self._gateway.live, 0, dict(at)
        for p in sorted(end):
            versions: dict[str, Entity | None] = {}
            async for record in self._gateway.ranges.of_all(Spot(self._topic, p), at[p], end[p]):
                at[p] = record.offset + 1
                quiet += 1
                news: tuple[str, Entity | None] | None = None
                if isinstance(record, Record):
                    before = versions.get(record.key, UNKNOWN)
                    change = self._live.change(record, before)
                    if change is not None:
                        versions[change.id] = change.after
                        news = change.news(self._live.entity_type, self._wanted)
                if news is None and quiet >= self._fresh:
                    news = "", None
                if news is not None:
                    quiet, said = 0, dict(at)
                    if not await self._tell(log.token(self._topic, at), *news):
                        return
        if said != end and not await self._tell(log.token(self._topic, end), "", None):
            return
        while self._line and await self._tell_next():
            pass

    async def _tell(self, position: str, event: str, shown: Entity | None) -> bool:
        """At the pace of the client's reading, and of the backend's answers; false if the client is gone."""
        if self._expansion is None:
            self._connection.write(told(self._asked.channel, position, event, shown))
            return await self._connection.drained()
        self._line.put((position, event), self._live.fetch(self._expansion, shown, self._wanted) if shown else None)
        return not self._line.full or await self._tell_next()

    async def _tell_next(self) -> bool:
        (position, event), members = await self._line.next()
        self._connection.write(expanded(self._asked.channel, position, event, members))
        return await self._connection.drained()

    def _too_slow(self) -> None:
        self._connection.close(4503, "the backend is slower than the log; come back")

    def _answer(self, members: str, position: str | None = None) -> None:
        self.answered = True
        self._connection.write(answer_text(self._request_id, members, position))


async def _pages(rows: AsyncIterator[str], limits: Limits) -> AsyncIterator[str]:
    """Rows, so many that a frame keeps within its limits."""
    page: list[str] = []
    size = 0
    async for text in rows:
        if page and (len(page) >= limits.snapshot_rows or size + len(text) > limits.snapshot_bytes):
            yield ",".join(page)
            page, size = [], 0
        page.append(text)
        size += len(text)
    if page:
        yield ",".join(page)


@contextlib.contextmanager
def log_away() -> Iterator[None]:
    """What the broker refuses is told as such."""
    try:
        yield
    except KafkaError as error:
        raise Problem("log_away") from error
