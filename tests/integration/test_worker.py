"""The worker on a real broker.

Requests become notices, time becomes forwards, reads stop them, starts repeat nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from projections.sql.schema import delivery_requests, meta, notices, outbox, positions, steps
from projections.sql.store import Store
from streams.worker import WorkerSettings, run
from topics.catalogue import COMMANDS, DELIVERIES, NOTICE_REQUESTS, NOTICES, RECIPIENTS, Catalogue
from topics.cluster import Cluster
from topics.events import (
    Decided,
    DeliveryRequested,
    Event,
    Lane,
    NoticeMarked,
    NoticeRequested,
    RecipientProposed,
    Record,
)
from topics.fetch import reading
from topics.ids import direct_notice_id, new_id
from topics.produce import Producer, now_us
from topics.provision import apply


class Site:
    """One installation for one test: topics of its own on the shared broker, a database file."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        self.cluster, self.catalogue = Cluster(bootstrap), Catalogue(("vm",), prefix=prefix, partitions=2)
        self.url = f"sqlite:///{folder}/tidings.db"
        self.store = Store(self.url)
        self.producer = Producer(self.cluster, self.catalogue, "test")

    async def say(self, topic: str, key: str, event: Event) -> None:
        await self.producer.send(topic, key, event)

    def settings(self) -> WorkerSettings:
        return WorkerSettings(self.cluster, self.catalogue, self.url, group=f"{self.catalogue.prefix}worker")

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(run(self.settings(), stop))
        try:
            yield
        finally:
            stop.set()
            assert await task == 0

    async def until(self, query: Any, holds: Callable[[list[Any]], bool], seconds: float = 30) -> list[Any]:
        """The rows of `query` once they hold."""
        rows: list[Any] = []
        async with asyncio.timeout(seconds):
            while True:
                rows = await asyncio.to_thread(self.rows, query)
                if holds(rows):
                    return rows
                await asyncio.sleep(0.02)

    def rows(self, query: Any) -> list[Any]:
        with self.store.reading() as tx:
            return list(tx.execute(query))

    async def log(self, topic: str) -> list[Record]:
        """Everything on a topic now."""
        out = []
        async with reading(self.cluster, self.catalogue) as reader:
            for spot, end in (await reader.ends(reader.spots([topic]))).items():
                out += [r async for r in reader.range(spot, 0, end) if isinstance(r, Record)]
        return out

    async def settled(self) -> None:
        """Until every folded partition is read to its end and nothing waits to be said."""
        async with reading(self.cluster, self.catalogue) as reader, asyncio.timeout(30):
            while True:
                at = {(r.topic, r.partition): r.next for r in self.rows(select(positions))}
                ends = await reader.ends(reader.spots({t for t, _ in at}))
                if at and all(at.get(s) == end for s, end in ends.items()) and not self.rows(select(outbox.c.event_id)):
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(kafka, namespace, tmp_path)
    await asyncio.to_thread(apply, made.cluster, made.catalogue)
    made.store.prepare()
    await made.producer.start()
    yield made
    await made.producer.stop()
    made.store.close()


def request(users: tuple[str, ...], key: str, after_ms: int = 0, **more: Any) -> NoticeRequested:
    lanes = tuple(Lane("email", "email", "recipient", u, after_ms) for u in users)
    given: dict[str, Any] = {
        "event_id": new_id(),
        "producer": "test",
        "occurred_at": now_us(),
        "subject": "billing",
        "key": None,
        "request_key": key,
        "users": users,
        "lanes": lanes,
        "forward": "",
        "severity": "info",
        "entity_type": None,
        "entity_id": None,
        "body": b'{"title":"hello","metric":{"high":1.10}}',
    }
    return NoticeRequested(**{**given, **more})


def recipient(user: str) -> RecipientProposed:
    body = f'{{"name":"{user}","addresses":{{"email":"{user}@example.test"}}}}'.encode()
    return RecipientProposed(
        event_id=new_id(),
        producer="test",
        occurred_at=now_us(),
        recipient_id=user,
        op="replace",
        based_on=None,
        body=body,
    )


def mark(user: str, notice: str, how: str) -> NoticeMarked:
    return NoticeMarked(
        event_id=new_id(),
        producer="test",
        occurred_at=now_us(),
        user=user,
        cmd=new_id(),
        mark=how,
        ids=(notice,),
        up_to=None,
        until=None,
    )


async def test_an_unread_notice_is_forwarded_once_and_a_read_one_never(site: Site) -> None:
    async with site.working():
        for user in ("ann", "bob"):
            await site.say(COMMANDS, user, recipient(user))
        await site.until(
            select(positions.c.next).where(positions.c.topic == RECIPIENTS), lambda r: bool(r and r[0].next >= 3)
        )
        await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bob"), "r1", after_ms=1500))
        raised = await site.until(select(notices), lambda r: len(r) == 2)
        assert {(n.user_id, n.body) for n in raised} == {
            (u, '{"title":"hello","metric":{"high":1.10}}') for u in ("ann", "bob")
        }
        await site.say(NOTICES, "ann", mark("ann", direct_notice_id("billing", "r1", "ann"), "read"))
        await site.until(select(delivery_requests), lambda r: len(r) == 1)
        await site.settled()
        states = {s.user_id: (s.state, s.reason) for s in site.rows(select(steps))}
        assert states == {"ann": ("skipped", "read"), "bob": ("delivered", "unread")}
    asked = [r.event for r in await site.log(DELIVERIES) if isinstance(r.event, DeliveryRequested)]
    assert [(d.user, d.channel) for d in asked] == [("bob", "email")]
    assert b'"address":"bob@example.test"' in asked[0].body


async def test_a_rebuild_gives_the_same_rows_and_says_nothing(site: Site) -> None:
    tables = (notices, steps, delivery_requests)
    async with site.working():
        await site.say(COMMANDS, "ann", recipient("ann"))
        for i in range(20):
            await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bob"), f"r{i}", after_ms=0))
        await site.until(select(delivery_requests), lambda r: len(r) == 20)
        await site.settled()
    before = {t.name: sorted(map(repr, site.rows(select(t)))) for t in tables}
    logged = {t: len(await site.log(t)) for t in site.catalogue.topics()}
    with site.store.writing() as tx:
        tx.execute(meta.update().values(stamp=0))
    async with site.working():
        await site.until(select(meta.c.stamp), lambda r: bool(r and r[0].stamp > 0))
        await site.settled()
    assert {t.name: sorted(map(repr, site.rows(select(t)))) for t in tables} == before
    grown = {t: n - logged[t] for t in site.catalogue.topics() if (n := len(await site.log(t))) > logged[t]}
    assert set(grown) <= {"schemas"}


async def test_each_question_has_one_answer_on_the_log_after_restarts(site: Site) -> None:
    async with site.working():
        await site.say(COMMANDS, "ann", recipient("ann"))
        await site.say(NOTICE_REQUESTS, "billing", request(("ann",), "a", after_ms=100))
    async with site.working():
        await site.until(select(delivery_requests), lambda r: len(r) == 1)
        await site.settled()
    decided = [r.event for r in await site.log(NOTICES) if isinstance(r.event, Decided)]
    assert len({d.event_id for d in decided}) == 1


async def test_bytes_that_are_no_event_become_dead_letters_and_nothing_stops(site: Site) -> None:
    await (await site.producer.enqueue_bytes(NOTICE_REQUESTS, "billing", b"garbage"))
    await (await site.producer.enqueue_bytes(NOTICES, "ann", b"\xc3\x01short"))
    async with site.working():
        await site.say(NOTICE_REQUESTS, "billing", request(("ann",), "after"))
        await site.until(select(notices), lambda r: len(r) == 1)
        await site.settled()
    async with reading(site.cluster, site.catalogue) as reader:
        ends = await reader.ends(reader.spots(["dead-letters"]))
    assert sum(ends.values()) == 1 + 2
