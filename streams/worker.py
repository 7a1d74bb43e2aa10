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
from streams.metrics import FOLDED, READY, serve
from streams.relay import Relay
from streams.runtime import consumer_app, greedy
from streams.watch import Watch
from topics.catalogue import NOTICES, SCHEMAS, Catalogue
from topics.cluster import Cluster
from topics.codec import UnknownSchema
from topics.fetch import Item, LogReader, Spot, patiently, to_item, waiting_for_schema
from topics.produce import Producer

log = logging.getLogger(__name__)

RESTART = 3
CLOSE_S = 10.0
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
    except (Restart, NewerRows, KafkaError) as reason:
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
        self._app: faust.App | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._failed: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def run(self, stop: asyncio.Event) -> int:
        """Work until `stop`, or until something fails; a stop is never waited for longer than CLOSE_S."""
        work = asyncio.ensure_future(self._work())
        stopped: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work, stopped, self._failed}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            return self._failed.result() if self._failed.done() else 0
        finally:
            for task in [work, stopped, *self._tasks]:
                task.cancel()
            await self._close()

    async def _work(self) -> None:
        """A start, and then whatever comes."""
        catalogue = self._settings.catalogue
        rows_of = await self._patiently(self._store.prepare)
        await self._until_there(self._reader.start)
        spots = self._reader.spots(folded_topics(catalogue))
        self._epochs = await self._until_opened(spots)
        self._starts = await self._reader.starts(spots)
        if why := await belonging.difference(self._store, self._reader, catalogue, spots, self._epochs):
            await asyncio.to_thread(belonging.rebuild, self._store, why)
            rows_of = await self._patiently(self._store.prepare)
        barrier = Barrier(await self._reader.ends(spots))
        begun = time.time() * 1000
        self._clock.heard((await self._producer.start()).timestamp, begun)
        self._folding = Folding(self._store, catalogue, barrier, self._producer.name, self._relay.said)
        self._folding.rows_of = rows_of
        app = self._app = self._faust()
        self._folding.assignment = lambda: app.consumer_generation_id
        if self._settings.metrics_port is not None:
            serve(self._settings.metrics_port)
        watch = Watch(self._store, self._reader, catalogue, spots)
        await watch.begin(self._folding, app)
        for work in (
            self._start_over(),
            self._relay.run(self._folding),
            self._clock.run(self._folding),
            watch.run(self._folding, app),
        ):
            self._tasks.append(self._task(work))
        await asyncio.Event().wait()

    def _faust(self) -> faust.App:
        app = consumer_app(
            self._settings.group,
            self._settings.cluster,
            self._assigned,
            max(t.partitions for t in self._settings.catalogue.topics().values()),
        )
        for topic in folded_topics(self._settings.catalogue):
            physical = self._settings.catalogue.physical(topic)
            # Nobody waits for rows of notices as for what follows from everything else: pushes need none.
            agent = self._patient_agent if topic == NOTICES else self._agent
            app.agent(app.topic(physical, value_serializer="raw", key_serializer="raw"), name=topic, concurrency=1)(
                agent
            )

        async def revoked(_app: Any, /, *args: Any, **_kwargs: Any) -> None:
            self._folding.disown([self._spot(tp) for tp in args[0]])

        app.on_partitions_revoked.connect(revoked, weak=False)
        return app

    async def _patient_agent(self, stream: Any) -> None:
        await self._agent(stream, rests=True)

    async def _agent(self, stream: Any, *, rests: bool = False) -> None:
        """Faust goes on after an event whose agent raised: so nothing is ever raised here, the process ends instead."""
        try:
            async for batch in greedy(stream, rests=rests):
                parts: defaultdict[tuple[Spot, int], list[Item]] = defaultdict(list)
                for event in batch:
                    run = event.message
                    parts[self._spot(run.tp), run.generation_id] += await self._items(run)
                for (spot, assignment), items in parts.items():
                    await self._folding.fold(spot, items, assignment)
                    FOLDED.labels(spot.topic).inc(len(items))
                for event in batch:
                    event.ack()
            log.info("a stream ended, as it does at a stop")
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - see above
            self._fail(error)
            await asyncio.Event().wait()

    async def _items(self, run: Any) -> list[Item]:
        catalogue, items = self._settings.catalogue, []
        for message in run.value:
            try:
                items.append(to_item(catalogue, message))
            except UnknownSchema:
                items.append(await self._waited_for(run.tp, message))
        return items

    async def _waited_for(self, tp: Any, message: Any) -> Item:
        """A newer writer's record, once its schema is on the log."""
        resting = TP(tp.topic, tp.partition)
        consumer = self._app.consumer if self._app else None
        if consumer:
            consumer.pause_partitions({resting})  # so that what comes behind it holds up no other
        item = await patiently(self._settings.cluster, self._settings.catalogue, message, to_item)
        if consumer:
            consumer.resume_partitions({resting})
        return item

    async def _assigned(self, assignment: set[TP]) -> Mapping[TP, int]:
        spots = {self._spot(tp): tp for tp in assignment}
        try:
            found = await self._folding.own(list(spots), self._epochs, self._starts)
        except asyncio.CancelledError:  # another rebalance came first
            raise
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

    async def _until_there(self, work: Callable[[], Awaitable[None]]) -> None:
        """Faust raises when it starts while the broker is down: wait for it first."""
        while True:
            try:
                await work()
            except KafkaError as error:
                log.warning("the broker is away error=%s", type(error).__name__)
                await asyncio.sleep(0.5)
            else:
                return

    async def _until_opened(self, spots: list[Spot]) -> dict[Spot, str]:
        """The log's epoch, once `tidings topics apply` has opened every partition."""
        every = [*spots, Spot(SCHEMAS, 0)]
        while unopened := [s for s, end in (await self._reader.ends(every)).items() if end == 0]:
            log.warning("waiting for `tidings topics apply` topic=%s", unopened[0].topic)
            await asyncio.sleep(1)
        return await self._reader.epoch(spots)

    async def _close(self) -> None:
        """All at once, and never longer than CLOSE_S: what is left is repeated by the next start."""
        closing = [self._producer.stop(), self._reader.stop(), *([self._app.stop()] if self._app else [])]
        done = asyncio.gather(*closing, *self._tasks, return_exceptions=True)
        try:
            found = await asyncio.wait_for(done, CLOSE_S)
        except TimeoutError:
            log.warning("not everything stopped within %g s", CLOSE_S)
            return
        for error in found:
            if isinstance(error, Exception):
                log.warning("did not stop in order error=%s", type(error).__name__)

    def _spot(self, tp: Any) -> Spot:
        return Spot(self._settings.catalogue.logical(tp.topic), tp.partition)
