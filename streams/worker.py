"""The worker: folds every topic into rows, decides what is asked, relays what is said, and says what is due.

A start is always the same (rule 2): check that the rows belong to this log, note the ends, fold up to them, then
decide, relay and keep time. Whatever it can't go on with ends the process with code 3, and the next start is the
resync.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.types import TP

from projections.sql.folds import folded_topics
from projections.sql.store import NewerRows, Store, is_away
from streams import belonging
from streams.barrier import Barrier
from streams.clock import Clock
from streams.folding import Folding, Restart
from streams.metrics import FOLDED, LAG, READY, serve
from streams.relay import Relay
from streams.runtime import consumer_app, greedy
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.fetch import Item, LogReader, Spot, patiently, to_item, waiting_for_schema
from topics.produce import Producer

log = logging.getLogger(__name__)

RESTART = 3
STUCK_AFTER_S = 15.0
LOOK_EVERY_S = 0.1


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """`database` is a SQLAlchemy URL; `group` the consumer group that workers share; metrics stay on the loopback."""

    cluster: Cluster
    catalogue: Catalogue
    database: str
    group: str = "tidings-worker"
    metrics_port: int | None = None


async def run(settings: WorkerSettings, stop: asyncio.Event) -> int:
    """Work until `stop`; 0, or 3 for "please restart me"."""
    store = Store(settings.database)
    worker = _Worker(settings, store)
    try:
        return await worker.run(stop)
    except (Restart, NewerRows) as reason:
        return _begin_again(reason)
    finally:
        store.close()


def _begin_again(reason: BaseException) -> int:
    """What is known and meant needs no traceback."""
    log.error("ending, to begin again reason=%r", str(reason))
    return RESTART


class _Worker:
    def __init__(self, settings: WorkerSettings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._reader = LogReader(settings.cluster, settings.catalogue)
        self._producer = Producer(settings.cluster, settings.catalogue, "worker")
        self._relay, self._clock = Relay(self._producer), Clock(self._producer)
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event) -> int:
        rows_of = await self._patiently(self._store.prepare)
        await self._until_there(self._reader.start, stop)
        if stop.is_set():
            return 0
        spots = self._reader.spots(folded_topics(self._settings.catalogue))
        self._epochs = await self._reader.epoch(spots)
        if why := await belonging.difference(self._store, self._reader, self._settings.catalogue, spots, self._epochs):
            await asyncio.to_thread(belonging.rebuild, self._store, why)
            rows_of = await self._patiently(self._store.prepare)
        barrier = Barrier(await self._reader.ends(spots))
        await self._producer.start()
        self._folding = Folding(self._store, self._settings.catalogue, barrier, self._producer.name, self._relay.wake)
        self._folding.rows_of = rows_of
        app = self._app()
        if self._settings.metrics_port is not None:
            serve(self._settings.metrics_port)
        tasks = [
            self._task(c)
            for c in (
                self._start_over(),
                self._relay.run(self._folding),
                self._clock.run(self._folding),
                self._watch(app),
                self._check(spots),
            )
        ]
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await app.start()
            await asyncio.wait({stopped, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            return self._failed.result() if self._failed.done() else 0
        finally:
            for task in [*tasks, stopped]:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._close(app)

    def _app(self) -> faust.App:
        app = consumer_app(self._settings.group, self._settings.cluster, self._assigned)
        for topic in folded_topics(self._settings.catalogue):
            physical = self._settings.catalogue.physical(topic)
            app.agent(app.topic(physical, value_serializer="raw", key_serializer="raw"), name=topic, concurrency=1)(
                self._agent
            )

        async def revoked(_app: Any, /, *args: Any, **_kwargs: Any) -> None:
            self._folding.disown([self._spot(tp) for tp in args[0]])

        app.on_partitions_revoked.connect(revoked, weak=False)
        return app

    async def _agent(self, stream: Any) -> None:
        """Faust goes on after an event whose agent raised: so nothing is ever raised here, the process ends instead."""
        try:
            async for batch in greedy(stream):
                parts: defaultdict[Spot, list[Item]] = defaultdict(list)
                for event in batch:
                    message = event.message
                    parts[self._spot(message.tp)].append(await self._item(message))
                for spot, items in parts.items():
                    await self._folding.fold(spot, items)
                    FOLDED.labels(spot.topic).inc(len(items))
                for event in batch:
                    event.ack()
            log.info("a stream ended, as it does at a stop")
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - see above
            self._fail(error)
            await asyncio.Event().wait()

    async def _item(self, message: Any) -> Item:
        message.timestamp = round(message.timestamp * 1000)
        return await patiently(self._settings.cluster, self._settings.catalogue, message, to_item)

    async def _assigned(self, assignment: set[TP]) -> Mapping[TP, int]:
        spots = {self._spot(tp): tp for tp in assignment}
        try:
            found = await self._folding.own(list(spots), self._epochs)
        except BaseException as error:
            self._fail(error)
            raise
        log.info("assigned partitions=%d", len(spots))
        return {spots[s]: n for s, n in found.items()}

    async def _start_over(self) -> None:
        """Watch the barrier; then decide what stood asked, here and on whatever is assigned later."""
        while not await self._folding.barrier.check(self._folding):  # noqa: ASYNC110 - positions in SQL set no event
            await asyncio.sleep(LOOK_EVERY_S)
        log.info("the start is over: every topic is folded up to the ends noted at the start")
        while True:
            READY.set(not waiting_for_schema)
            await self._folding.sweep_all()
            await asyncio.sleep(1)

    async def _watch(self, app: faust.App) -> None:
        """No progress for 15 s while there is something to read: end, and begin again."""
        seen, since = -1, time.monotonic()
        while True:
            await asyncio.sleep(1)
            behind = 0
            for spot, at in list(self._folding.at.items()):
                tp = TP(self._settings.catalogue.physical(spot.topic), spot.partition)
                lag = max(0, (app.consumer.highwater(tp) or 0) - at[0])
                LAG.labels(spot.topic, str(spot.partition)).set(lag)
                behind += lag
            if not behind or self._folding.progress != seen or waiting_for_schema:
                seen, since = self._folding.progress, time.monotonic()
            elif time.monotonic() - since > STUCK_AFTER_S:
                msg = f"{behind} records wait and nothing was folded for {STUCK_AFTER_S:g} s"
                raise Restart(msg)

    async def _check(self, spots: list[Spot]) -> None:
        """Every minute: do the rows still belong to this log?"""
        while True:
            await asyncio.sleep(belonging.CHECK_EVERY_S)
            try:
                mine = [s for s in spots if s in self._folding.at]
                why = await belonging.difference(
                    self._store, self._reader, self._settings.catalogue, mine, await self._reader.epoch(mine)
                )
            except KafkaError as error:
                log.warning("the log can't be compared now error=%s", type(error).__name__)
                continue
            if why:
                await asyncio.to_thread(belonging.rebuild, self._store, why)
                raise Restart(why)
            await self._folding.in_db(partial(belonging.thin, self._store, mine))

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda t: None if t.cancelled() or t.exception() is None else self._fail(t.exception()))
        return task

    def _fail(self, error: BaseException | None) -> None:
        if isinstance(error, Restart):
            _begin_again(error)
        else:
            log.critical("ending because of something nobody foresaw", exc_info=error)
        if not self._failed.done():
            self._failed.set_result(RESTART)

    async def _patiently(self, work: Any) -> Any:
        while True:
            try:
                return await asyncio.to_thread(work)
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("the database is away error=%s", type(error).__name__)
                await asyncio.sleep(1)

    async def _until_there(self, work: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """Faust raises when it starts while the broker is down: wait for it first."""
        while not stop.is_set():
            try:
                await work()
            except KafkaError as error:
                log.warning("the broker is away error=%s", type(error).__name__)
                await asyncio.sleep(0.5)
            else:
                return

    async def _close(self, app: faust.App) -> None:
        for name, closing in (
            ("consumer", app.stop()),
            ("producer", self._producer.stop()),
            ("reader", self._reader.stop()),
        ):
            try:
                await asyncio.wait_for(closing, 12)
            except Exception as error:  # noqa: BLE001 - a stop that fails must not keep the others from stopping
                log.warning("did not stop in order what=%s error=%s", name, type(error).__name__)

    def _spot(self, tp: Any) -> Spot:
        return Spot(self._settings.catalogue.logical(tp.topic), tp.partition)
