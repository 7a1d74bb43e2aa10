"""The sender: takes due deliveries under leases, lets channels try them, and says on the log what came of it.

Several senders share a queue by its leases. A lease is held until the result has been read back from the rows, not
until the log acknowledged it: until then the queue still shows the delivery as undone.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from contextlib import suppress

from projections.sql.store import NewerRows, Store
from sender.attempt import Attempts
from sender.delivery import Taken
from sender.gate import Gate, NotYet
from sender.holdings import Holdings, Job
from sender.metrics import Metrics
from sender.patience import Patience, Stopped, outage
from sender.queue import Fold, Queue, RowsMoved
from sender.settings import SenderSettings
from topics.catalogue import DELIVERIES, Catalogue
from topics.cluster import Cluster
from topics.produce import Producer

log = logging.getLogger(__name__)

MOST_LEASES = 500  # so many results that are not read back: the worker is far behind, no more until it has caught up
CATCH_UP_S = 10.0
STOP_S = 12.0


async def run(
    settings: SenderSettings, store: Store, cluster: Cluster, catalogue: Catalogue, stop: asyncio.Event
) -> int:
    """Serve until `stop`. 0, or 3 where the process should be started anew (a newer database, or a bug, which is
    logged).
    """
    metrics, patience = Metrics(), Patience(stop)
    producer = Producer(cluster, catalogue, "sender")
    queue = Queue(store, str(uuid.uuid4()), settings.lease_s, catalogue.topics()[DELIVERIES].partitions)
    attempts = Attempts(settings, queue, producer, patience, metrics)
    sender = Sender(
        settings=settings,
        queue=queue,
        attempts=attempts,
        gate=Gate(cluster, catalogue, queue, patience),
        patience=patience,
        metrics=metrics,
    )
    try:
        metrics.serve(settings)
        await patience.through_outages("start", lambda: patience.sql(queue.prepare))
        await patience.through_outages("start", producer.start)
        await sender.serve()
    except Stopped:
        return 0
    except Exception as error:
        newer = [e for e in getattr(error, "exceptions", [error]) if isinstance(e, NewerRows)]
        if newer:
            log.error("%s: start the newer version", newer[0])  # noqa: TRY400 - an upgrade is no fault of ours
        else:
            log.exception("the sender ends because of a bug")
        return 3
    finally:
        await attempts.close()
        await producer.stop()
        metrics.close()
        patience.close()
    return 0


class Sender:
    """One run: `serve` takes and keeps leases until the stop."""

    def __init__(
        self,
        *,
        settings: SenderSettings,
        queue: Queue,
        attempts: Attempts,
        gate: Gate,
        patience: Patience,
        metrics: Metrics,
    ) -> None:
        self._settings, self._queue, self._attempts = settings, queue, attempts
        self._gate, self._patience, self._metrics = gate, patience, metrics
        self._held = Holdings(queue, patience, settings.lease_s)
        self._tasks: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._freed = asyncio.Event()

    async def serve(self) -> None:
        """Until the stop, then let attempts finish. A bug ends all in an ExceptionGroup."""
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep(group))
            try:
                while not self._patience.stop.is_set():
                    await self._turn(group)
            except Stopped:
                log.info("stopping attempts=%d", len(self._tasks))
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=STOP_S)
            for task in (keeper, *self._tasks):
                task.cancel()

    async def _turn(self, group: asyncio.TaskGroup) -> None:
        """Take what is due and start on it, or rest."""
        if self._gate.fold is None:
            self._metrics.ready.set(0)
            await self._patience.through_outages("the sender", self._open)
            self._metrics.ready.set(1)
        fold, unfinished = self._gate.fold, sum(1 for job in self._held.jobs.values() if job.placed is None)
        free = min(self._settings.concurrency - unfinished, MOST_LEASES - len(self._held.jobs))
        if fold is None or free <= 0:
            self._freed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._freed.wait(), self._settings.poll_s)
            return
        try:
            taken = await self._patience.through_outages("the queue", lambda: self._take(free, fold))
        except RowsMoved:
            self._gate.shut("they were wiped or restored")
            return
        inherited = []
        for one in taken:
            job = Job(one, one.good_until, one.attempts + 1)
            self._held.jobs[one.delivery.delivery_id] = job
            if one.inherited and not one.accepted:
                inherited.append(job)
            else:
                self._start(group, self._work(job, fold))
        if inherited:
            self._start(group, self._take_over(group, inherited, fold))
        if not taken:
            await self._patience.rest(self._settings.poll_s)

    async def _open(self) -> None:
        while True:
            try:
                await self._gate.open()
                await self._patience.sql(self._queue.sweep, anew=True)
            except (NotYet, RowsMoved) as why:
                log.warning("nothing is sent yet: %s", why)
                await self._patience.rest(1)
            else:
                return

    async def _take(self, limit: int, fold: Fold) -> list[Taken]:
        if not await self._patience.sql(self._queue.has_due):
            return []
        self._gate.fold, taken = await self._patience.sql(self._queue.take, limit, fold)
        return [t for t in taken if t.delivery.delivery_id not in self._held.jobs]

    async def _work(self, job: Job, fold: Fold) -> None:
        """One delivery to its result; without one it goes back to the queue."""
        known = not job.taken.inherited  # what is not known stays leased until that is over: the next one inherits it
        try:
            async with self._slots:
                if await self._attempts.carry_out(job, fold):
                    return
            known = True
        except RowsMoved:
            self._gate.shut("they were wiped or restored")
        except Stopped:
            log.info("left to others delivery=%s", job.delivery.delivery_id)
        self._held.jobs.pop(job.delivery.delivery_id, None)
        if known:
            await self._patience.or_later("a lease", self._patience.sql(self._queue.drop, {job.delivery.delivery_id}))

    async def _take_over(self, group: asyncio.TaskGroup, jobs: list[Job], fold: Fold) -> None:
        """Somebody had these and did not say what came of it: only when the rows hold all that is on the log now is it
        known.
        """
        try:
            async with asyncio.timeout(CATCH_UP_S):
                await self._gate.caught_up({job.delivery.partition for job in jobs}, fold)
        except Exception as error:
            if not isinstance(error, RowsMoved | Stopped) and not outage(error):
                raise
            log.warning("takeover put off deliveries=%d error=%s", len(jobs), type(error).__name__)
            for job in jobs:
                self._held.jobs.pop(job.delivery.delivery_id, None)
            return
        self._metrics.takeovers.inc(len(jobs))
        for job in jobs:
            self._start(group, self._work(job, fold))

    async def _keep(self, group: asyncio.TaskGroup) -> None:
        while True:
            await asyncio.sleep(self._settings.poll_s)
            self._metrics.leases.set(len(self._held.jobs))
            for job in await self._held.look_after(complete=self._gate.fold is not None):
                self._start(group, self._say_again(job))

    async def _say_again(self, job: Job) -> None:
        log.warning("the log has lost a result, which is said again delivery=%s", job.delivery.delivery_id)
        if job.result is not None:
            await self._attempts.say(job, job.result)

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[object, object, None]) -> None:
        task = group.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._freed.set()
