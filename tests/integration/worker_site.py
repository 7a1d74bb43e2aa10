"""One installation for one test of the worker: topics of its own on the shared broker, a database, records to write."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import select

from projections.sql.schema import outbox, positions
from projections.sql.store import Store
from streams.worker import WorkerSettings, run
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.events import (
    EntityChanged,
    Event,
    Lane,
    NoticeMarked,
    NoticeRaised,
    NoticeRequested,
    RecipientProposed,
    Record,
)
from topics.fetch import reading
from topics.ids import new_id
from topics.produce import Producer, now_us
from topics.provision import apply


class Site:
    """Topics, a database (a file in `folder`, or at `url`), a producer that is nobody of ours, and workers."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, url: str = "") -> None:
        self.cluster, self.catalogue = Cluster(bootstrap), Catalogue(("vm",), prefix=prefix, partitions=2)
        self.url = url or f"sqlite:///{folder}/tidings.db"
        self.store = Store(self.url)
        self.producer = Producer(self.cluster, self.catalogue, "test")

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Site"]:
        """Topics and tables are made, and the producer runs."""
        await asyncio.to_thread(apply, self.cluster, self.catalogue)
        self.store.prepare()
        await self.producer.start()
        try:
            yield self
        finally:
            await self.producer.stop()
            self.store.close()

    async def say(self, topic: str, key: str, event: Event) -> None:
        await self.producer.send(topic, key, event)

    async def say_bytes(
        self, topic: str, key: str | None, value: bytes, headers: list[tuple[str, bytes]] | None = None
    ) -> None:
        """What no program of ours would write."""
        await (await self.producer.enqueue_bytes(topic, key, value, headers))

    def settings(self) -> WorkerSettings:
        return WorkerSettings(self.cluster, self.catalogue, self.url, group=f"{self.catalogue.prefix}worker")

    @asynccontextmanager
    async def working(self, code: int = 0) -> AsyncIterator[asyncio.Task[int]]:
        """A worker, told to stop at the end; it has to end with `code`."""
        stop = asyncio.Event()
        task = asyncio.create_task(run(self.settings(), stop))
        try:
            yield task
        finally:
            stop.set()
            assert await task == code

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
            starts = await reader.starts(reader.spots([topic]))
            for spot, end in (await reader.ends(starts)).items():
                out += [r async for r in reader.range(spot, starts[spot], end) if isinstance(r, Record)]
        return out

    async def sizes(self) -> dict[str, int]:
        """How many records stand on each topic, but for the schemas that every start writes again."""
        async with reading(self.cluster, self.catalogue) as reader:
            ends = await reader.ends(reader.spots([t for t in self.catalogue.topics() if t != "schemas"]))
        return {t: sum(n for s, n in ends.items() if s.topic == t) for t in {s.topic for s in ends}}

    async def said(self) -> set[tuple[str, str]]:
        """Every event on the log as (topic, id), but for schemas: one that was sent again, which is allowed, is one."""
        topics = [t for t in self.catalogue.topics() if t != "schemas"]
        return {(t, r.event.event_id) for t in topics for r in await self.log(t) if r.event is not None}

    async def settled(self) -> None:
        """Until every folded partition is read to its end and nothing waits to be said."""
        async with reading(self.cluster, self.catalogue) as reader, asyncio.timeout(30):
            while True:
                at = {(r.topic, r.partition): r.next for r in self.rows(select(positions))}
                ends = await reader.ends(reader.spots({t for t, _ in at}))
                if at and all(at.get(s) == end for s, end in ends.items()) and not self.rows(select(outbox.c.event_id)):
                    return
                await asyncio.sleep(0.05)


def by_test() -> dict[str, Any]:
    """What every event has."""
    return {"event_id": new_id(), "producer": "test", "occurred_at": now_us()}


def request(users: tuple[str, ...], key: str, after_ms: int = 0, **more: Any) -> NoticeRequested:
    """Billing asks for a notice to users, with a forward by mail."""
    given: dict[str, Any] = by_test() | {
        "subject": "billing",
        "key": None,
        "request_key": key,
        "users": users,
        "lanes": tuple(Lane("email", "email", "recipient", u, after_ms) for u in users),
        "forward": "",
        "severity": "info",
        "entity_type": None,
        "entity_id": None,
        "body": b'{"title":"hello","metric":{"high":1.10}}',
    }
    return NoticeRequested(**{**given, **more})


def raised(user: str, after_ms: int = 0, **more: Any) -> NoticeRaised:
    """A notice for one user, forwarded to a mail address."""
    given: dict[str, Any] = by_test() | {
        "notice_id": new_id(),
        "user": user,
        "inbox": True,
        "kind": "direct",
        "alert": None,
        "config_id": None,
        "key": None,
        "entity_type": None,
        "entity_id": None,
        "severity": "info",
        "lanes": (Lane("email", "email", "address", f"{user}@example.test", after_ms),),
        "forward": "",
        "body": b'{"title":"hello"}',
    }
    return NoticeRaised(**{**given, **more})


def recipient(user: str, body: bytes = b"", based_on: int | None = None) -> RecipientProposed:
    """A recipient with a mail address, or with `body`."""
    told = body or f'{{"name":"{user}","addresses":{{"email":"{user}@example.test"}}}}'.encode()
    return RecipientProposed(**by_test(), recipient_id=user, op="replace", based_on=based_on, body=told)


def mark(user: str, notice: str, how: str) -> NoticeMarked:
    """A user marks one notice."""
    return NoticeMarked(**by_test(), user=user, cmd=new_id(), mark=how, ids=(notice,), up_to=None, until=None)


def entity(entity_id: str, body: bytes = b"{}") -> EntityChanged:
    """A virtual machine as it stands now."""
    return EntityChanged(**by_test(), entity_type="vm", entity_id=entity_id, op="created", body=body)
