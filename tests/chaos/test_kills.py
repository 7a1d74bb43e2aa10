"""Kill -9 of every role at random moments while 2,000 notices flow: none lost, none twice, one decision a question.

CHAOS_SEED in the environment gives another order of kills and notices than the usual one.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Awaitable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from projections.sql.schema import notices
from tests.chaos.judge import Key, Said, judge
from tests.chaos.site import Post, Site, running
from topics.ids import direct_notice_id, new_id

DIRECT, CHANGES, ANNOUNCEMENTS = 1_200, 800, 3
KILLS_EACH = 5
FLOW_S = 30
FORWARD_AFTER_S = 6
USERS = tuple(f"u{i}" for i in range(8))
EVERYBODY = tuple(f"p{i}" for i in range(400))  # a fan-out of several transactions; none of them has an address
INBOX_USER, MAIL_USER = "u0", "u1"
ALERT = """
import json, sys
configs = []
for line in sys.stdin:
    told = json.loads(line)
    if told["type"] == "hello":
        print('{"type":"hello","v":1}', flush=True)
        continue
    if told["type"] == "config":
        configs = [told["id"]]
    if told["type"] == "entity" and configs:
        name = told["value"]["n"]
        print(json.dumps({"type": "notice", "kind": "event", "key": name, "config": configs[0], "title": name}))
    print('{"type":"done"}', flush=True)
"""


async def kill(site: Site, rng: random.Random) -> None:
    """Every role KILLS_EACH times, at moments and in an order that the seed gives; in rounds, because a role that is
    killed again and again while it starts would seldom be killed at work.
    """
    order = [name for _ in range(KILLS_EACH) for name in rng.sample(list(site.roles), len(site.roles))]
    for name in order:
        await asyncio.sleep(rng.uniform(0.2, 2 * FLOW_S / len(order) - 0.2))
        site.revive()
        await asyncio.to_thread(site.roles[name].kill)


async def flow(site: Site, rng: random.Random) -> frozenset[Key]:
    """Say 2,000 things; read a sixth of the direct ones at once, and a sixth when they are about to be forwarded, so
    that read and Due race. What was read.
    """
    read: set[Key] = set()
    room, readers = asyncio.Semaphore(12), asyncio.Semaphore(60)  # a mark is answered when the worker has it

    async def direct(i: int) -> None:
        user = USERS[i % len(USERS)]
        body = {"to": [user], "title": f"d{i}"} | (
            {"key": f"k{i}"} if i % 2 else {}
        )  # one goes straight, one is fanned out
        async with room:
            await site.surely("POST", "/v1/notices", "shop", body, (202,), **{"idempotency-key": f"d{i}"})
        if i % 3:
            return
        after = 0.0 if i % 6 else rng.gauss(FORWARD_AFTER_S, 0.3)
        await asyncio.sleep(after)
        notice = direct_notice_id("shop", f"d{i}", user)
        mark = {"ids": [notice], "as": "read", "cmd": new_id()}
        async with readers:
            await site.surely("GET", f"/v1/notices/{notice}", user, None, (200,))  # who reads it has seen it
            await site.surely("POST", "/v1/notices/mark", user, mark, (200, 202))
        read.add((notice, user))

    async def announce(i: int) -> None:
        body = {"to": list(EVERYBODY), "title": f"a{i}"}
        async with room:
            await site.surely("POST", "/v1/notices", "shop", body, (202,), **{"idempotency-key": f"a{i}"})

    async def change(i: int) -> None:
        async with room:
            await site.surely("PUT", f"/v1/entities/host/h{i}", "shop", {"n": f"c{i}"}, (202,))

    async def paced(index: int, one: Awaitable[None]) -> None:
        await asyncio.sleep(index * FLOW_S / len(work))
        await one

    work = [*map(direct, range(DIRECT)), *map(change, range(CHANGES)), *map(announce, range(ANNOUNCEMENTS))]
    rng.shuffle(work)
    await asyncio.gather(*(paced(index, one) for index, one in enumerate(work)))
    return frozenset(read)


async def people(site: Site) -> None:
    """Those who get notices, and the config that the alert program serves."""
    for user in USERS:
        person = {"name": user, "addresses": {"email": f"{user}@example.test"}}
        await site.surely("PUT", f"/v1/recipients/{user}", "shop", person, (200, 201))
    channel = {"inbox": [INBOX_USER], "email": [MAIL_USER]}
    config = {"id": "each", "name": "each", "metric": {}, "channel": channel}
    await site.surely("POST", "/v1/alert-configs", "shop", config, (201, 409))


@pytest.mark.timeout(180)
async def test_nothing_is_lost_and_nothing_twice(
    kafka: str, namespace: str, tmp_path: Path, free_ports: tuple[int, int]
) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "20261123"))
    rng, post, alerts = random.Random(seed), Post(), tmp_path / "alerts.toml"
    (tmp_path / "alert.py").write_text(ALERT)
    alerts.write_text(f'[[alert]]\nname = "each"\nrun = ["{sys.executable}", "alert.py"]\nentities = ["host"]\n')
    async with running(
        kafka, namespace, tmp_path, post, alerts=alerts, ports=free_ports, forward_after=FORWARD_AFTER_S
    ) as site:
        await people(site)
        read, _ = await asyncio.gather(flow(site, rng), kill(site, random.Random(rng.random())))

        async def waited_for() -> str:
            stored = site.rows(select(func.count()).select_from(notices))[0][0]
            missing = DIRECT + 2 * CHANGES + ANNOUNCEMENTS * len(EVERYBODY) - stored
            return await site.unrest() if missing <= 0 else f"{missing} notices are not stored"

        await site.until(waited_for)
        users = [USERS[i % len(USERS)] for i in range(DIRECT)]
        said = Said(
            direct=frozenset((direct_notice_id("shop", f"d{i}", user), user) for i, user in enumerate(users)),
            announced=frozenset(
                (direct_notice_id("shop", f"a{i}", user), user) for i in range(ANNOUNCEMENTS) for user in EVERYBODY
            ),
            read=read,
            titles=frozenset(f"c{i}" for i in range(CHANGES)),
            inbox_user=INBOX_USER,
            mail_user=MAIL_USER,
            forward_after=FORWARD_AFTER_S,
        )
        seen = await judge(site, post, said)
        print(f"\nseed {seed}: {seen}")  # noqa: T201 - for whoever runs it by hand
