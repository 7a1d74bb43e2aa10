"""What surrounds the sender in its tests: a log, a worker that folds it when it may, a scripted SMTP server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from aiosmtpd import smtp
from sqlalchemy import func, select

from projections.sql.positions import FenceLost, at_assignment, move
from projections.sql.schema import delivery_requests
from projections.sql.store import Store, next_offsets, wipe
from projections.sql.truths import DeliveriesFold
from sender.queue import leases
from sender.service import run
from sender.settings import SenderSettings
from topics.catalogue import DELIVERIES, Catalogue
from topics.cluster import Cluster
from topics.events import DeliveryCancelled, DeliveryRequested, DeliverySent, Event, Record, TopicOpened
from topics.fetch import Spot, reading
from topics.ids import derived_id
from topics.produce import Producer
from topics.provision import apply

LIMIT_S = 40.0


async def until(what: str, condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition, with a limit."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.02)
    raise AssertionError(what)


class World:
    """`fold` does what a worker does with `deliveries`."""

    def __init__(self, kafka: str, namespace: str, url: str) -> None:
        self.cluster, self.catalogue = Cluster(kafka), Catalogue((), prefix=namespace, partitions=2)
        self.store = Store(url)
        self.producer = Producer(self.cluster, self.catalogue, "test")
        self._fold = DeliveriesFold()
        self.working = asyncio.Event()

    async def start(self) -> None:
        await asyncio.to_thread(apply, self.cluster, self.catalogue)
        await self.producer.start()
        self.store.prepare()

    async def stop(self) -> None:
        await self.producer.stop()
        self.store.close()

    async def request(self, name: str, **more: Any) -> Record:
        """DeliveryRequested on the log."""
        deadline_s = more.pop("deadline_s", 3600)
        body = {"address": f"{name}@example.test", "title": f"title {name}", "text": "text", "severity": "info"} | more
        return await self.say(
            DeliveryRequested(
                **self._common("requested", name),
                step="email",
                channel=more.get("channel", "email"),
                message_id=f"<{name}@tidings>",
                deadline_at=int((time.time() + deadline_s) * 1000),
                body=json.dumps(body).encode(),
            )
        )

    async def cancel(self, name: str) -> Record:
        return await self.say(DeliveryCancelled(**self._common("cancelled", name), reason="read"))

    async def say(self, event: Any) -> Record:
        placed = await self.producer.send(DELIVERIES, event.user, event)
        return Record(DELIVERIES, placed.partition, placed.offset, placed.timestamp, event.user, event)

    async def sent_by_another(self, name: str) -> None:
        await self.say(DeliverySent(**self._common("delivery-sent", name), attempt=1, body=b"{}"))

    def _common(self, question: str, name: str) -> dict[str, Any]:
        return {
            "event_id": derived_id(question, name),
            "producer": "test",
            "occurred_at": 0,
            "delivery_id": name,
            "user": f"user-{name}",
            "notice_id": f"notice-{name}",
        }

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Folds while it is entered and `working` is set; begins where the rows are."""
        self.working.set()
        task = asyncio.create_task(self._work())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def _work(self) -> None:
        async with reading(self.cluster, self.catalogue) as reader:
            spots = reader.spots([DELIVERIES])
            epochs = await reader.epoch(spots)
            known: dict[Spot, int] = {}
            while True:
                await self.working.wait()
                with self.store.writing() as tx:
                    rows = {s: at_assignment(tx, s, epochs[s]).next for s in spots}
                if rows != known:
                    await reader.seek(rows)
                    known = rows
                for record in await reader.records(timeout_ms=20):
                    await self.working.wait()
                    assert isinstance(record, Record)
                    try:
                        known[self.fold(record)] = record.offset + 1
                    except FenceLost:  # wiped, or folded by the test
                        break

    def fold(self, record: Record) -> Spot:
        spot = Spot(record.topic, record.partition)
        with self.store.writing() as tx:
            if not isinstance(record.event, TopicOpened):
                state = self._fold.load(tx, spot, [record])
                self._fold.apply(state, record)
                self._fold.save(tx, spot, state)
            move(tx, spot, (record.offset, 0), (record.offset + 1, 0))
        return spot

    def wipe(self) -> None:
        with self.store.writing() as tx:
            wipe(tx)

    async def log(self) -> list[Event]:
        """Everything on `deliveries`, without the opening."""
        found: list[Event] = []
        async with reading(self.cluster, self.catalogue) as reader:
            for spot, end in (await reader.ends(reader.spots([DELIVERIES]))).items():
                found += [r.event async for r in reader.range(spot, 0, end) if isinstance(r, Record) and r.event]
        return [event for event in found if not isinstance(event, TopicOpened)]

    async def results(self, *kinds: type[Event]) -> list[Any]:
        return [e for e in await self.log() if isinstance(e, kinds)]

    def requested(self) -> int:
        with self.store.reading() as tx:
            return int(tx.execute(select(func.count()).select_from(delivery_requests)).scalar_one())

    def next_of(self, partition: int) -> int:
        with self.store.reading() as tx:
            return next_offsets(tx).get((DELIVERIES, partition), 0)

    def accepted(self, name: str) -> bool:
        with self.store.reading() as tx:
            found = select(leases.c.accepted_answer).where(leases.c.delivery_id == name)
            return tx.execute(found).scalar() is not None

    def owners(self) -> dict[str, str]:
        with self.store.reading() as tx:
            return {r.delivery_id: r.owner for r in tx.execute(select(leases))}

    @asynccontextmanager
    async def sender(self, server: SmtpServer, **more: Any) -> AsyncIterator[asyncio.Task[int]]:
        """A running sender; it has to stop with 0."""
        stop = asyncio.Event()
        task = asyncio.create_task(run(settings(server, **more), self.store, self.cluster, self.catalogue, stop))
        try:
            yield task
        finally:
            stop.set()
            assert await asyncio.wait_for(task, 30) == 0


def settings(server: SmtpServer, **more: Any) -> SenderSettings:
    """With time enough for an attempt on a busy machine; what is about a limit gives its own."""
    given: dict[str, Any] = {"lease_s": 30, "attempt_s": 20, "poll_s": 0.03, "first_retry_s": 0.05}
    return SenderSettings(smtp=server.url, **given | more)


class SmtpServer:
    """Takes what `script` lets it: an answer for each DATA (or RCPT), `hang`, or `drop` after the data."""

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        self.data_script: list[str] = []
        self.rcpt_script: list[str] = []
        self.seen_rcpt = 0
        self.connections: set[Any] = set()
        self.made = 0
        self.release = asyncio.Event()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(self._connection, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.release.set()
        self._server.close()
        for connection in list(self.connections):
            connection.transport.close()

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        self.seen_rcpt += 1
        answer = self.rcpt_script.pop(0) if self.rcpt_script else ""
        if answer == "hang":
            await self.release.wait()
        elif answer:
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        answer = self.data_script.pop(0) if self.data_script else ""
        if answer == "hang":
            await self.release.wait()
            return "451 too late"
        self.mails.append(envelope.content)
        if answer == "drop":
            server.transport.abort()
        elif answer:
            self.mails.pop()
            return answer
        return "250 taken as number 7"

    def _connection(self) -> smtp.SMTP:
        outer = self

        class Connection(smtp.SMTP):
            def connection_made(self, transport: Any) -> None:
                outer.made += 1
                outer.connections.add(self)
                super().connection_made(transport)

            def connection_lost(self, error: Exception | None) -> None:
                outer.connections.discard(self)
                super().connection_lost(error)

        return Connection(self, hostname="localhost", enable_SMTPUTF8=True, loop=asyncio.get_running_loop())


@contextmanager
def no_more(mails: list[bytes]) -> Iterator[None]:
    """Nothing is delivered inside."""
    before = len(mails)
    yield
    assert len(mails) == before
