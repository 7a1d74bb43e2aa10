"""The gateway as one thing: its log reader, its memories, its producer and its database, begun and ended together."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from aiokafka.errors import KafkaError

from api.access.admission import Admission
from api.access.revocations import Revocations
from api.access.tokens import Tokens
from api.database import Database
from api.expand.expansion import Expander
from api.live.connection import Connection
from api.live.entities import LiveEntities
from api.live.inboxes import LiveInboxes
from api.live.log import LiveLog
from api.live.ranges import Ranges
from api.metrics import Metrics
from api.notices.intake import Intake
from api.problems import Problem
from api.settings import GatewaySettings
from api.tasks import must_not_fail
from projections.sql.schema import STAMP
from projections.sql.store import Store, generation
from projections.sql.views import entities, positions, revocations
from projections.sql.views.entities import EntityRow
from projections.sql.views.revocations import Revocation
from topics.catalogue import (
    ALERT_CONFIGS,
    COMMANDS,
    CONTROLS,
    NOTICE_REQUESTS,
    NOTICES,
    RECIPIENTS,
    SCHEMAS,
    entity_topic,
)
from topics.events import Record
from topics.fetch import Broken, Spot
from topics.produce import NotOnTheLog, Placed, Producer

log = logging.getLogger(__name__)
WRITTEN = (SCHEMAS, NOTICE_REQUESTS, COMMANDS, ALERT_CONFIGS, RECIPIENTS)
DRAIN_STEPS = 100
GOING_AWAY = (4501, "the gateway is going away")
ROWS_CHECK_S = 2.0
ROUND_S = 0.25


class _Loaded(NamedTuple):
    """Rows of one transaction, and where on the log they stand: of `controls`, and of each entity type."""

    revoked: list[Revocation]
    controls: dict[int, int]
    entities: dict[str, tuple[list[EntityRow], dict[int, int]]]


class Gateway:
    """Made from its settings; `start` and `stop` run in one event loop. ValueError for settings that can't be right."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.types = settings.catalogue.entity_types
        followed = (CONTROLS, NOTICES, *(entity_topic(t) for t in self.types))
        self.live = LiveLog(settings.cluster, settings.catalogue, followed, WRITTEN, self.metrics)
        self.tokens = Tokens(
            settings.secret,
            settings.jwks,
            issuer=settings.token_issuer,
            audience=settings.token_audience,
            revocations=Revocations(lambda: self.live.has_come_to_the_end(CONTROLS)),
        )
        self._inbox_told = self.metrics.fan_out.labels("inbox").observe
        self.admission = Admission(settings.limits)
        self.database = Database(Store(settings.database))
        self.ranges = Ranges(settings.cluster, settings.catalogue)
        self.entities = {t: LiveEntities(t, settings.limits, self._token(t), self.metrics) for t in self.types}
        self.inboxes = LiveInboxes(self.live, self.database, self.ranges, settings.limits.wait)
        self.producer = Producer(settings.cluster, settings.catalogue, "gateway")
        self.intake = Intake(self)
        self.expander = Expander(settings.backends, self.metrics)
        self.connections: set[Connection] = set()
        self.draining = False
        self.writable = asyncio.Event()
        self._begun = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._rows_of = ""

    # ---- its life
    async def start(self) -> None:
        """Begin to follow the log in the background; requests are answered from now on, some with `not_ready`."""
        if self.settings.metrics_port is not None:
            self.metrics.ready.set_function(lambda: self.ready)
            self.metrics.serve(self.settings.metrics_port)
        reading = self.live.run(self._begin, self._take, self._wanted, self._forget)
        for runs in (reading, self._watch_rows(), self._go_round()):
            self._run(runs)
        if self.tokens.keys is not None:
            self._run(self.tokens.keys.follow())

    async def stop(self) -> None:
        """Close everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.intake.stop()
        await asyncio.gather(self.producer.stop(), self.ranges.stop(), self.expander.stop())
        self.metrics.stop()
        await asyncio.get_running_loop().run_in_executor(None, self.database.close)

    def _run(self, runs: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(runs))
        self._tasks[-1].add_done_callback(must_not_fail)

    async def drain(self) -> None:
        """Send every client away, in no order and spread over time, so that they don't all come back at once."""
        self.draining = True
        leaving = list(self.connections)
        random.shuffle(leaving)
        at_once = -(-len(leaving) // DRAIN_STEPS)
        for i in range(0, len(leaving), at_once or 1):
            for connection in leaving[i : i + at_once]:
                connection.close(*GOING_AWAY)
            await asyncio.sleep(self.settings.drain / DRAIN_STEPS * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
        for connection in list(self.connections):  # whose handshake was under way
            connection.close(*GOING_AWAY)

    @property
    def ready(self) -> bool:
        """Whether it has caught up with the log, and can tell whose tokens hold."""
        return not self.waits_for()

    def waits_for(self) -> list[str]:
        """What keeps it from serving what is current, in words."""
        found: list[str | None] = [self.live.waits_for()]
        if not self.writable.is_set():
            found.append("the log, to be written to")
        elif not self._begun.is_set():
            found.append("rows of this log")
        if not self.keys_ready:
            found.append("the keys of TIDINGS_JWKS")
        if self.draining:
            found.append("its clients to leave")
        return [reason for reason in found if reason is not None]

    @property
    def keys_ready(self) -> bool:
        """Whether there is something to check tokens with."""
        return self.tokens.keys is None or self.tokens.keys.ready

    async def settled(self) -> None:
        """Wait until it is ready, or is to end."""
        while not (self.ready or self.draining):  # noqa: ASYNC110 - several things, and nobody signals them all
            await asyncio.sleep(0.05)

    async def started(self, seconds: float) -> bool:
        """Wait until its memory has been loaded; false when the time is over."""
        if self._begun.is_set():  # a deadline costs more than all the rest
            return True
        try:
            async with asyncio.timeout(seconds):  # wait_for would swallow a cancellation, and who left would go on
                await self._begun.wait()
        except TimeoutError:
            return False
        return True

    async def rows_position(self, topic: str) -> str:
        """Where the rows of a topic stand, as clients hold it."""
        found = await self.database.read(positions.reached, topic)
        return self.live.token(topic, {p: r.next for p, r in found.items()})

    def position_after(self, placed: Placed) -> str:
        """The position after a record that was written, as clients hold it."""
        return self.live.token(placed.topic, {placed.partition: placed.offset + 1})

    async def rows_hold(self, placed: Placed) -> bool:
        """Wait, for a bounded time, until the rows have what was written."""
        following, seconds = {placed.partition: placed.offset + 1}, self.settings.limits.wait
        return await self.database.reaches(placed.topic, following, seconds, answers=False)

    async def missing_positions(self) -> list[str]:
        """Topics of which the rows say nothing yet, or that are of another log."""
        missing = []
        for topic in self.live.followed:
            found = await self.database.read(positions.reached, topic)
            partitions = range(self.live.partitions(topic))
            if any(p not in found or found[p].epoch != self.live.opened.get(Spot(topic, p)) for p in partitions):
                missing.append(topic)
        return missing

    async def _go_round(self) -> None:
        """Pings and deadlines of all connections: a timer for each of them would cost more than a look at all."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(ROUND_S)
            now = loop.time()
            for connection in list(self.connections):
                if connection.look_at <= now:
                    connection.look(now)

    # ---- following the log
    async def _open_for_writing(self) -> None:
        """Nothing is written before the log is opened: the first record of a partition is its TopicOpened."""
        while not self.writable.is_set():
            try:
                await self.producer.start()
                self.writable.set()
            except (KafkaError, NotOnTheLog) as error:
                log.warning("waiting for the log error=%s", type(error).__name__)
                await asyncio.sleep(1)

    async def _begin(self) -> dict[Spot, int]:
        """Entities and positions of one transaction; rows of another log are waited for. `notices` begin at the end."""
        await self._open_for_writing()
        pause = 0.1
        while True:
            loaded = await self.database.read(self._rows)
            if loaded is not None:
                break
            log.info("waiting for rows of this log")
            await asyncio.sleep(pause)
            pause = min(pause * 2, 2.0)
        self.tokens.revocations.load(loaded.revoked)
        begin = {Spot(CONTROLS, p): n for p, n in loaded.controls.items()}
        for entity_type, (rows, base) in loaded.entities.items():
            self.entities[entity_type].begin(rows, base)
            begin |= {Spot(entity_topic(entity_type), p): n for p, n in base.items()}
        self._begun.set()
        return begin

    def _rows(self, tx: Any) -> _Loaded | None:
        """In a thread of the database. Null while the rows belong to another version or another log."""
        stamp, self._rows_of = generation(tx)
        if stamp != STAMP:
            return None
        bases: dict[str, dict[int, int]] = {}
        for topic in (CONTROLS, *map(entity_topic, self.types)):
            at = positions.reached(tx, topic)
            if any(r.epoch != self.live.opened.get(Spot(topic, p)) for p, r in at.items()):
                return None
            bases[topic] = {p: at[p].next if p in at else 0 for p in range(self.live.partitions(topic))}
        rows = {t: (list(entities.of_type(tx, t)), bases[entity_topic(t)]) for t in self.types}
        return _Loaded(revocations.all_of(tx), bases[CONTROLS], rows)

    async def _watch_rows(self) -> None:
        """What was loaded from rows that were rebuilt since is loaded again: they may have been wrong."""
        while True:
            await asyncio.sleep(ROWS_CHECK_S)
            if not self._begun.is_set():
                continue
            try:
                stamp, rows_of = await self.database.read(generation)
            except Problem:  # the database is away, which is told where somebody asks it something
                continue
            if stamp == STAMP and rows_of != self._rows_of:
                log.warning("the rows were rebuilt and are loaded again generation=%s", rows_of)
                self._begun.clear()
                self.live.begin_anew()

    async def _take(self, record: Record | Broken) -> None:
        if isinstance(record, Broken):
            self.metrics.broken.labels(record.topic).inc()
            log.warning("broken record topic=%s partition=%d offset=%d", record.topic, record.partition, record.offset)
        elif record.topic == NOTICES:
            self.inboxes.take(record)
            if self.live.caught_up:
                self._inbox_told(max(0.0, time.time() - record.timestamp / 1000))
        elif record.topic == CONTROLS:
            self._revoke(record)
        else:
            await self.entities[record.topic.removeprefix("entities.")].take(record)

    def _revoke(self, record: Record) -> None:
        """Whoever is here with a revoked token leaves at once."""
        revoked = self.tokens.revocations
        if revoked.take(record.event, record.timestamp):
            self.metrics.revocations.inc()
            for connection in list(self.connections):
                if connection.identity is not None and revoked.refuse(connection.identity):
                    connection.close(4401, "the token was revoked")

    def _wanted(self, topic: str, key: bytes | None) -> bool:
        return topic != NOTICES or self.inboxes.watches(key)

    def _forget(self) -> None:
        self._begun.clear()
        self.inboxes.forget()
        for live in self.entities.values():
            live.forget()
        for connection in list(self.connections):
            connection.close(4502, "the log begins anew; resume or take a snapshot")

    def _token(self, entity_type: str) -> Callable[[], str]:
        topic = entity_topic(entity_type)
        return lambda: self.live.token(topic, self.live.vector(topic))
