"""kill -9 of every role at random moments while 2,000 notices flow: none lost, none twice, one decision a question.

The judge reads the log and the database when all is quiet, and what the SMTP server took; it shares no code with what it judges but the
events.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email import message_from_bytes
from pathlib import Path
from typing import Any

import httpx
from aiosmtpd.controller import Controller
from sqlalchemy import select

from projections.sql.schema import delivery_results, notices, outbox, positions
from projections.sql.store import Store
from tests.chaos.roles import Role
from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES, Catalogue
from topics.cluster import Cluster
from topics.events import AlertCommitted, Decided, DeliveryRequested, DeliverySent, Due, NoticeMarked, NoticeRaised, Record
from topics.fetch import reading
from topics.ids import direct_notice_id, new_id
from topics.provision import apply

SEED = 20_261_123
DIRECT, CHANGES = 1_200, 800
KILLS_EACH = 5
FORWARD_AFTER = 4
USERS = tuple(f"u{i}" for i in range(8))
SCOPES = "entities:write:host,entities:read:host,notices:write,configs,recipients"
SECRET = "chaos-needs-a-secret-of-32-bytes!"
ALERT = """
import json, sys
configs = []
for line in sys.stdin:
    m = json.loads(line)
    if m["type"] == "hello":
        print('{"type":"hello","v":1}', flush=True)
        continue
    if m["type"] == "config":
        configs = [m["id"]]
    if m["type"] == "entity" and configs:
        print(json.dumps({"type": "notice", "kind": "event", "key": m["value"]["n"], "config": configs[0], "title": m["value"]["n"]}))
    print('{"type":"done"}', flush=True)
"""


class Post:
    """A real SMTP server that notes when it took which Message-ID."""

    def __init__(self) -> None:
        self.taken: defaultdict[str, list[float]] = defaultdict(list)
        self.to: dict[str, str] = {}

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        identity = str(message_from_bytes(envelope.content)["Message-ID"])
        self.taken[identity].append(time.time())
        self.to[identity] = envelope.rcpt_tos[0]
        return "250 taken"


class Site:
    """Processes, clients and the judge's eyes on one installation."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path, smtp_port: int, port: int) -> None:
        self.cluster, self.catalogue = Cluster(bootstrap), Catalogue(("host",), prefix=prefix, partitions=2)
        self.store = Store(f"sqlite:///{folder}/tidings.db")
        environment = {
            "TIDINGS_KAFKA": bootstrap,
            "TIDINGS_TOPIC_PREFIX": prefix,
            "TIDINGS_PARTITIONS": "2",
            "TIDINGS_DATABASE": f"sqlite:///{folder}/tidings.db",
            "TIDINGS_SECRET": SECRET,
            "TIDINGS_ENTITY_TYPES": "host",
            "TIDINGS_FORWARD_AFTER": str(FORWARD_AFTER),
            "TIDINGS_SMTP": f"smtp://127.0.0.1:{smtp_port}",
            "TIDINGS_HOST": "127.0.0.1",
            "TIDINGS_PORT": str(port),
        }
        (folder / "alert.py").write_text(ALERT)
        (folder / "alerts.toml").write_text(
            f'[[alert]]\nname = "each"\nrun = ["{sys.executable}", "{folder}/alert.py"]\nentities = ["host"]\n'
        )
        arguments = {"worker": (), "gateway": (), "sender": (), "wrapper": (str(folder / "alerts.toml"),)}
        self.roles = {n: Role(n, a, environment, folder / f"{n}.log") for n, a in arguments.items()}
        self.http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10)
        self.tokens: dict[str, str] = {}

    def token(self, user: str) -> str:
        import jwt

        if user not in self.tokens:
            claims = {"sub": user, "scope": SCOPES.split(","), "exp": int(time.time()) + 3600}
            self.tokens[user] = jwt.encode(claims, SECRET, "HS256")
        return self.tokens[user]

    async def surely(self, method: str, path: str, user: str, body: Any, good: tuple[int, ...], **headers: str) -> Any:
        """Call until it is answered as it should be: what a careful client does while a gateway is killed."""
        async with asyncio.timeout(80):
            while True:
                try:
                    answer = await self.http.request(
                        method, path, json=body, headers={"authorization": f"Bearer {self.token(user)}", **headers}
                    )
                    if answer.status_code in good:
                        return answer.json() if answer.content else None
                    assert answer.status_code >= 500 or answer.status_code in (202, 404), answer.text
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.2)

    async def until(self, holds: Any, what: str, seconds: float = 80) -> None:
        async with asyncio.timeout(seconds):
            while not await holds():
                for role in self.roles.values():
                    role.revive()
                await asyncio.sleep(0.2)
        assert what

    def rows(self, query: Any) -> list[Any]:
        with self.store.reading() as tx:
            return list(tx.execute(query))

    async def log(self, *topics: str) -> list[Record]:
        out: list[Record] = []
        async with reading(self.cluster, self.catalogue) as reader:
            for spot, end in (await reader.ends(reader.spots(topics))).items():
                out += [r async for r in reader.range(spot, 0, end) if isinstance(r, Record)]
        return out

    async def quiet(self) -> bool:
        """All is read, nothing waits, every delivery has its end."""
        at = {(r.topic, r.partition): r.next for r in self.rows(select(positions))}
        async with reading(self.cluster, self.catalogue) as reader:
            ends = await reader.ends(reader.spots({t for t, _ in at}))
        if any(at.get(s) != end for s, end in ends.items()) or self.rows(select(outbox.c.event_id)):
            return False
        requested = {r.event.delivery_id for r in await self.log(DELIVERIES) if isinstance(r.event, DeliveryRequested)}
        ended = {r.delivery_id for r in self.rows(select(delivery_results)) if r.outcome != "waiting"}
        return requested <= ended


@asynccontextmanager
async def running(bootstrap: str, prefix: str, folder: Path, post: Post, port: int) -> AsyncIterator[Site]:
    server = Controller(post, hostname="127.0.0.1", port=0)
    server.start()
    site = Site(bootstrap, prefix, folder, server.server.sockets[0].getsockname()[1], port)
    try:
        await asyncio.to_thread(apply, site.cluster, site.catalogue)
        for role in site.roles.values():
            role.start()
        yield site
    finally:
        for role in site.roles.values():
            role.stop()
        await site.http.aclose()
        site.store.close()
        server.stop()


async def kill(site: Site, rng: random.Random, done: asyncio.Event) -> None:
    """Every role KILLS_EACH times, in an order and at moments that the seed gives."""
    order = [name for name in site.roles for _ in range(KILLS_EACH)]
    rng.shuffle(order)
    for name in order:
        await asyncio.sleep(rng.uniform(0.3, 1.8))
        for role in site.roles.values():
            role.revive()
        await asyncio.to_thread(site.roles[name].kill)
    done.set()


async def flow(site: Site, rng: random.Random) -> set[tuple[str, str]]:
    """Say 2,000 things; read a third of the direct ones at once. What was read: (notice, user)."""
    read: set[tuple[str, str]] = set()
    room = asyncio.Semaphore(12)

    async def direct(i: int) -> None:
        user = USERS[i % len(USERS)]
        async with room:
            body = {"to": [user], "title": f"d{i}"}
            await site.surely("POST", "/v1/notices", "shop", body, (202,), **{"idempotency-key": f"d{i}"})
            if i % 3 == 0:
                notice = direct_notice_id("shop", f"d{i}", user)
                await site.surely("GET", f"/v1/notices/{notice}", user, None, (200,))  # who reads has seen it
                mark = {"ids": [notice], "as": "read", "cmd": new_id()}
                await site.surely("POST", "/v1/notices/mark", user, mark, (200, 202))
                read.add((notice, user))

    async def change(i: int) -> None:
        async with room:
            await site.surely("PUT", f"/v1/entities/host/h{i}", "shop", {"n": f"c{i}"}, (202,))

    work = [direct(i) for i in range(DIRECT)] + [change(i) for i in range(CHANGES)]
    rng.shuffle(work)

    async def paced(index: int, one: Any) -> None:
        await asyncio.sleep(index * 30 / len(work))
        await one

    await asyncio.gather(*(paced(i, w) for i, w in enumerate(work)))
    return read


async def test_nothing_is_lost_and_nothing_twice(kafka: str, namespace: str, tmp_path: Path, free_port: int) -> None:
    rng, post = random.Random(SEED), Post()
    async with running(kafka, namespace, tmp_path, post, free_port) as site:
        people: list[Any] = [
            site.surely("PUT", f"/v1/recipients/{u}", "shop", {"name": u, "addresses": {"email": f"{u}@example.test"}}, (200, 201))
            for u in USERS
        ]
        await asyncio.gather(*people)
        config = {"id": "each", "name": "each", "metric": {}, "channel": {"inbox": ["u0"], "email": ["u1"]}}
        await site.surely("POST", "/v1/alert-configs", "shop", config, (201, 409))
        over = asyncio.Event()
        killing = asyncio.create_task(kill(site, rng, over))
        read = await flow(site, rng)
        await killing
        expected = {(direct_notice_id("shop", f"d{i}", USERS[i % 8]), USERS[i % 8]) for i in range(DIRECT)}

        async def all_there() -> bool:
            return len(site.rows(select(notices.c.notice_id))) >= DIRECT + 2 * CHANGES and await site.quiet()

        await site.until(all_there, "every notice stored, every delivery ended")
        await judge(site, post, expected, read)


async def judge(site: Site, post: Post, expected: set[tuple[str, str]], read: set[tuple[str, str]]) -> None:
    """The rules, on the log and in the rows."""
    boxes, requests, deliveries = await site.log(NOTICES), await site.log(NOTICE_REQUESTS), await site.log(DELIVERIES)
    stored = Counter((r.notice_id, r.user_id) for r in site.rows(select(notices.c.notice_id, notices.c.user_id)))
    assert max(stored.values()) == 1
    alerts = {k for k in stored if k not in expected}
    assert expected <= stored.keys(), "a direct notice is lost"
    titles = Counter(
        json.loads(r.body)["title"] for r in site.rows(select(notices.c.body).where(notices.c.user_id == "u0", notices.c.alert == "each"))
    )
    assert titles == Counter(f"c{i}" for i in range(CHANGES)), "an alert's notice is lost or doubled"
    assert len(alerts) == 2 * CHANGES  # each goes to u0's inbox and to u1, who also gets it by mail

    raised = {(r.event.notice_id, r.event.user): r for r in reversed(boxes) if isinstance(r.event, NoticeRaised)}
    assert raised.keys() == stored.keys()
    decided: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    delivered: set[tuple[str, str]] = set()
    for r in boxes:
        if isinstance(r.event, Decided):
            e = r.event
            decided[e.notice_id, e.user, e.step, str(e.number)].add(e.event_id)
            if e.answer == "deliver":
                delivered.add((e.notice_id, e.user))
    assert all(len(ids) == 1 for ids in decided.values()), "a second decision on one question"

    for key in read:  # read before the Due that delivers: never forwarded; after it: forwarded
        about = [r for r in boxes if getattr(r.event, "user", None) == key[1]]
        first = min((r.offset for r in about if isinstance(r.event, NoticeMarked) and key[0] in r.event.ids), default=1 << 60)
        due_at = raised[key].timestamp + FORWARD_AFTER * 1000
        dues = [
            r.offset for r in about if isinstance(r.event, Due) and r.event.notice_id == key[0] and r.timestamp >= due_at
        ]
        assert (key in delivered) == (bool(dues) and min(dues) < first), "read and forwarded do not follow the log"
    unread = {k for k in stored if k not in read and (k in expected or k[1] == "u1")}
    assert unread <= delivered, "not forwarded that should have been"

    asked = {r.event.delivery_id: r.event for r in deliveries if isinstance(r.event, DeliveryRequested)}
    sent = {r.event.delivery_id for r in deliveries if isinstance(r.event, DeliverySent)}
    assert {(e.notice_id, e.user) for e in asked.values()} == delivered
    by_message = {e.message_id: i for i, e in asked.items()}
    assert set(post.taken) <= by_message.keys(), "a mail that nobody asked for"
    assert {asked[i].message_id for i in sent} <= post.taken.keys(), "said to be sent, and never taken"
    assert {i for i, e in asked.items() if (e.notice_id, e.user) in unread} <= sent, "an unread notice without its mail"
    twice = {m: at for m, at in post.taken.items() if len(at) > 1}
    kills = site.roles["sender"].kills
    for message, at in twice.items():
        assert any(at[0] - 0.5 <= k <= at[-1] for k in kills), f"{message} twice, and no kill between"

    again = Counter(r.event.event_id for r in boxes + requests + deliveries if r.event and not isinstance(r.event, Due))
    counts = {name: len(role.kills) for name, role in site.roles.items()}
    commits = sum(isinstance(r.event, AlertCommitted) for r in requests)
    repeats = sum(n - 1 for n in again.values())
    print(
        f"\n{sum(counts.values())} kills {counts}; {len(stored)} notices stored, {len(delivered)} forwarded, {commits} commits; "
        f"{repeats} records of one id repeated on the log; {len(twice)} mails taken twice"
    )
