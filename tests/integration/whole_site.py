"""A whole installation on the shared broker, from outside: every role a process, a mail server, and a client."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import jwt
from aiosmtpd.controller import Controller
from sqlalchemy import select

from projections.sql.schema import delivery_results, outbox, positions, steps
from projections.sql.store import Store
from tests.chaos.roles import Role
from topics.catalogue import DELIVERIES, Catalogue
from topics.cluster import Cluster
from topics.events import DeliveryRequested, Record
from topics.fetch import reading
from topics.provision import apply

LIMIT_S = 60.0
SECRET = "chaos-needs-a-secret-of-32-bytes!"
SCOPES = ("entities:write:host", "entities:read:host", "notices:write", "configs", "recipients")


class Post:
    """A real SMTP server that notes when it took which Message-ID, and for whom."""

    def __init__(self) -> None:
        self.taken: defaultdict[str, list[float]] = defaultdict(list)
        self.to: dict[str, str] = {}
        self.mails: dict[str, Message] = {}

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        mail = message_from_bytes(envelope.content)
        identity = str(mail["Message-ID"])
        self.mails[identity] = mail
        self.to[identity] = ",".join(envelope.rcpt_tos)
        self.taken[identity].append(time.time())
        return "250 taken"


class Site:
    """Processes, clients and the judge's eyes on one installation."""

    def __init__(
        self,
        bootstrap: str,
        prefix: str,
        folder: Path,
        *,
        alerts: Path,
        smtp_port: int,
        port: int,
        forward_after: int,
    ) -> None:
        self.cluster, self.catalogue = Cluster(bootstrap), Catalogue(("host",), prefix=prefix, partitions=2)
        self.store = Store(f"sqlite:///{folder}/tidings.db")
        environment = {
            "TIDINGS_KAFKA": bootstrap,
            "TIDINGS_TOPIC_PREFIX": prefix,
            "TIDINGS_PARTITIONS": "2",
            "TIDINGS_DATABASE": f"sqlite:///{folder}/tidings.db",
            "TIDINGS_SECRET": SECRET,
            "TIDINGS_ENTITY_TYPES": "host",
            "TIDINGS_FORWARD_AFTER": str(forward_after),
            "TIDINGS_SMTP": f"smtp://127.0.0.1:{smtp_port}",
            "TIDINGS_SENDER_LEASE": "5s",
            "TIDINGS_HOST": "127.0.0.1",
            "TIDINGS_PORT": str(port),
        }
        arguments = {"worker": (), "gateway": (), "sender": (), "wrapper": (str(alerts),)}
        self.roles = {n: Role(n, (n, *a), environment, folder / f"{n}.log") for n, a in arguments.items()}
        self.url = f"http://127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=self.url, timeout=10)
        self._tokens: dict[str, str] = {}

    def token(self, user: str) -> str:
        """What `user` signs in with; everybody may do everything here."""
        if user not in self._tokens:
            claims = {"sub": user, "scope": list(SCOPES), "exp": int(time.time()) + 3600}
            self._tokens[user] = jwt.encode(claims, SECRET, "HS256")
        return self._tokens[user]

    async def surely(self, method: str, path: str, user: str, body: Any, good: tuple[int, ...], **headers: str) -> None:
        """Call until it is answered as it should be."""
        async with asyncio.timeout(LIMIT_S):
            while True:
                try:
                    answer = await self.http.request(
                        method, path, json=body, headers={"authorization": f"Bearer {self.token(user)}", **headers}
                    )
                    if answer.status_code in good:
                        return
                    assert answer.status_code >= 500 or answer.status_code in (202, 404), answer.text
                except httpx.TransportError:
                    pass  # not there yet
                await asyncio.sleep(0.2)

    async def until(self, holds: Callable[[], Awaitable[str]], seconds: float = LIMIT_S) -> None:
        """Wait until `holds` has nothing to complain of."""
        still = ""
        try:
            async with asyncio.timeout(seconds):
                while still := await holds():  # noqa: ASYNC110 - what it looks at sets no event
                    await asyncio.sleep(0.3)
        except TimeoutError:
            raise AssertionError(f"after {seconds:g} s still: {still}") from None

    def rows(self, query: Any) -> list[Any]:
        """From the database, as it is now."""
        with self.store.reading() as tx:
            return list(tx.execute(query))

    async def log(self, *topics: str) -> list[Record]:
        """Everything on these topics, partition by partition."""
        out: list[Record] = []
        async with reading(self.cluster, self.catalogue) as reader:
            for spot, end in (await reader.ends(reader.spots(topics))).items():
                out += [r async for r in reader.range(spot, 0, end) if isinstance(r, Record)]
        return out

    async def unrest(self) -> str:
        """What is still under way: something unread, waiting to leave, waiting for its time, or not delivered."""
        at = {(r.topic, r.partition): r.next for r in self.rows(select(positions))}
        async with reading(self.cluster, self.catalogue) as reader:
            ends = await reader.ends(reader.spots({t for t, _ in at}))
        behind = {f"{s.topic}/{s.partition}": end - at.get(s, 0) for s, end in ends.items() if at.get(s) != end}
        if behind:
            return f"not folded: {behind}"
        if leaving := self.rows(select(outbox.c.event_id)):
            return f"{len(leaving)} events in the outbox"
        if waiting := self.rows(select(steps.c.notice_id).where(steps.c.state.in_(("waiting", "asked")))):
            return f"{len(waiting)} steps wait"
        requested = {r.event.delivery_id for r in await self.log(DELIVERIES) if isinstance(r.event, DeliveryRequested)}
        ended = {r.delivery_id for r in self.rows(select(delivery_results)) if r.outcome != "waiting"}
        return f"{len(requested - ended)} deliveries have no end" if requested - ended else ""


@asynccontextmanager
async def running(
    bootstrap: str, prefix: str, folder: Path, post: Post, *, alerts: Path, ports: tuple[int, int], forward_after: int
) -> AsyncIterator[Site]:
    """All roles as processes; `ports`: the mail server's and the gateway's, `forward_after` in seconds."""
    server = Controller(post, hostname="127.0.0.1", port=ports[0])
    server.start()
    site = Site(
        bootstrap, prefix, folder, alerts=alerts, smtp_port=ports[0], port=ports[1], forward_after=forward_after
    )
    try:
        await asyncio.to_thread(apply, site.cluster, site.catalogue)
        for role in site.roles.values():
            role.start()
        yield site
    finally:
        await asyncio.gather(*(asyncio.to_thread(role.stop) for role in site.roles.values()))
        await site.http.aclose()
        site.store.close()
        server.stop()
