"""One installation from outside: its broker, its database, its processes and their supervisor, and the calls of careful
clients.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
from aiosmtpd.controller import Controller
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError

from broker.embedded import EmbeddedBroker
from projections.sql.schema import delivery_results, outbox, positions, steps
from projections.sql.store import Store
from tests.chaos.databases import Database
from tests.chaos.post import Post
from tests.chaos.roles import ROOT, Role
from topics.catalogue import DELIVERIES, Catalogue
from topics.cluster import Cluster
from topics.events import DeliveryRequested, Event
from topics.fetch import Item, Spot, reading
from topics.produce import NotOnTheLog, Placed, Producer
from topics.provision import apply

SECRET = "chaos-needs-a-secret-of-32-bytes!"
SCOPES = ("entities:write:host", "entities:read:host", "notices:write", "configs", "recipients")
WAITING_STATES = ("waiting", "asked", "collected", "gathered")
LEASE_S = 6


class Site:
    """Two workers, a gateway, two senders and a wrapper on a broker and a database of their own.

    `patience_s` is how long a careful client repeats a call. `supervised` is held by whoever needs that nothing is
    started meanwhile.
    """

    def __init__(
        self, folder: Path, broker: EmbeddedBroker, database: Database, *, ports: tuple[int, int], patience_s: float
    ) -> None:
        self.folder, self.broker, self.database, self.patience_s = folder, broker, database, patience_s
        self.cluster, self.catalogue = Cluster(broker.bootstrap), Catalogue(("host",), partitions=2)
        self.store, self.producer = Store(database.url), Producer(self.cluster, self.catalogue, "chaos")
        self.supervised, self.post = asyncio.Lock(), Post()
        self.environment = {
            "TIDINGS_KAFKA": broker.bootstrap,
            "TIDINGS_PARTITIONS": "2",
            "TIDINGS_DATABASE": database.url,
            "TIDINGS_SECRET": SECRET,
            "TIDINGS_ENTITY_TYPES": "host",
            "TIDINGS_SMTP": f"smtp://127.0.0.1:{ports[0]}",
            "TIDINGS_SENDER_LEASE": f"{LEASE_S}s",
            "TIDINGS_HOST": "127.0.0.1",
            "TIDINGS_PORT": str(ports[1]),
        }
        commands: dict[str, tuple[str, ...]] = {
            "worker-1": ("worker",),
            "worker-2": ("worker",),
            "gateway": ("gateway",),
            "sender-1": ("sender",),
            "sender-2": ("sender",),
            "wrapper": ("wrapper", str(folder / "alerts.toml")),
        }
        self.roles = {n: Role(n, c, self.environment, folder / f"{n}.log") for n, c in commands.items()}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", timeout=10)
        self._tokens: dict[str, str] = {}

    # ------------------------------------------------------------------ careful clients
    async def surely(self, method: str, path: str, user: str, body: Any, good: tuple[int, ...], **headers: str) -> None:
        """Call until it is answered as it should be."""
        async with asyncio.timeout(self.patience_s):
            while True:
                try:
                    answer = await self.http.request(
                        method, path, json=body, headers={"authorization": f"Bearer {self._token(user)}", **headers}
                    )
                    if answer.status_code in good and not answer.json().get("refused"):
                        return
                    again = answer.status_code >= 500 or answer.status_code in (202, 404, 422)
                    assert again, answer.text  # of a batch some may have to be said again, or all
                except httpx.TransportError:
                    pass  # killed or frozen: what came of the call is not known, so it is made again
                await asyncio.sleep(0.2)

    async def say(self, topic: str, key: str, event: Event) -> Placed:
        """Put an event on the log, for certain: a repeat has the same ids."""
        async with asyncio.timeout(self.patience_s):
            while True:
                try:
                    return await self.producer.send(topic, key, event, timeout=10)
                except NotOnTheLog:
                    await asyncio.sleep(0.2)

    def _token(self, user: str) -> str:
        if user not in self._tokens:
            claims = {"sub": user, "scope": list(SCOPES), "exp": int(time.time()) + 7200}
            self._tokens[user] = jwt.encode(claims, SECRET, "HS256")
        return self._tokens[user]

    # ------------------------------------------------------------------ looking
    async def until(self, what: str, holds: Callable[[], Awaitable[str]], seconds: float) -> None:
        """Wait until `holds` has nothing to complain of."""
        still = ""
        try:
            async with asyncio.timeout(seconds):
                while still := await holds():  # noqa: ASYNC110 - what it looks at sets no event
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise AssertionError(f"{what}: after {seconds:g} s still: {still}") from None

    def rows(self, query: Any) -> list[Any]:
        """From the database, as it is now."""
        with self.store.reading() as tx:
            return list(tx.execute(query))

    async def log(self, *topics: str) -> dict[Spot, list[Item]]:
        """Everything on these topics (all, if none is named)."""
        out: dict[Spot, list[Item]] = {}
        async with reading(self.cluster, self.catalogue) as reader:
            spots = reader.spots(topics or [t for t in self.catalogue.topics() if t != "schemas"])
            starts, ends = await reader.starts(spots), await reader.ends(spots)
            for spot in spots:
                out[spot], at = [], starts[spot]
                await reader.seek({spot: at})
                while at < ends[spot]:
                    out[spot] += [await reader.item(m) for m in await reader.poll(500) if m.offset < ends[spot]]
                    at = await reader.position(spot)
        return out

    async def unrest(self) -> str:
        """What is still under way: something unread, waiting to leave, waiting for its time, or not delivered."""
        try:
            at = {Spot(r.topic, r.partition): r.next for r in await asyncio.to_thread(self.rows, select(positions))}
            async with reading(self.cluster, self.catalogue) as reader:
                ends = await reader.ends(reader.spots({s.topic for s in at}))
            behind = {f"{s.topic}/{s.partition}": end - at.get(s, 0) for s, end in ends.items() if at.get(s) != end}
            if behind or not at:
                return f"not folded: {behind}"
            if leaving := self.rows(select(outbox.c.event_id)):
                return f"{len(leaving)} events in the outbox"
            if waiting := self.rows(select(steps).where(steps.c.state.in_(WAITING_STATES))):
                return f"{len(waiting)} steps wait, as {waiting[0]}"
            ended = {r.delivery_id for r in self.rows(select(delivery_results)) if r.outcome != "waiting"}
        except DBAPIError as error:
            return f"the database: {error}"
        log = await self.log(DELIVERIES)
        asked = {i.event.delivery_id for p in log.values() for i in p if _is_request(i)}  # type: ignore[union-attr]
        return f"{len(asked - ended)} deliveries have no end" if asked - ended else ""

    # ------------------------------------------------------------------ processes
    def revive(self) -> None:
        """Start what has ended and is wanted."""
        for role in self.roles.values():
            role.revive()

    async def command(self, name: str, seconds: float) -> int:
        """Run `tidings NAME`, for so long at most; its exit code. What it says stands in its log."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tidings.cli.main", name),
                cwd=ROOT,
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
            )
            try:
                return await asyncio.wait_for(process.wait(), seconds)
            except TimeoutError:
                return -signal.SIGKILL
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()

    async def supervise(self) -> None:
        """For ever."""
        while True:
            async with self.supervised:
                self.revive()
            await asyncio.sleep(0.3)


def _is_request(item: Item) -> bool:
    return isinstance(getattr(item, "event", None), DeliveryRequested)


@asynccontextmanager
async def running(
    folder: Path, broker: EmbeddedBroker, database: Database, *, ports: tuple[int, int], patience_s: float
) -> AsyncIterator[Site]:
    """All roles as processes; `ports`: the mail server's and the gateway's."""
    site = Site(folder, broker, database, ports=ports, patience_s=patience_s)
    server = Controller(site.post, hostname="127.0.0.1", port=ports[0])
    server.start()
    supervisor: asyncio.Task[None] | None = None
    try:
        await asyncio.to_thread(apply, site.cluster, site.catalogue)
        site.store.prepare()
        await site.producer.start()
        supervisor = asyncio.create_task(site.supervise())
        yield site
    finally:
        if supervisor is not None:
            supervisor.cancel()
        await asyncio.gather(*(asyncio.to_thread(role.stop) for role in site.roles.values()))
        await site.producer.stop()
        await site.http.aclose()
        site.store.close()
        server.stop()
