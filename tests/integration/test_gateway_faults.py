"""What is done to a gateway from outside: peers that vanish, never read, or talk rubbish; a broker that is away; kill
-9 and freezes under many clients. Whoever comes back has missed nothing and is told nothing twice; memory is bounded.

`make test` plays it in small; `make faults` with 1,000 clients and outages of 20 s.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Limits
from broker.embedded import EmbeddedBroker
from tests.integration.followers import BELOW_5, VM, Follower, Line, Writer, dial, until, until_told
from tests.integration.gateway_process import MIB, GatewayProcess, token
from tests.integration.gateway_world import Site
from tests.integration.rude import come_and_go
from tests.integration.worker_site import raised
from topics.catalogue import CONTROLS, NOTICES

FULL = bool(os.environ.get("GATEWAY_FAULTS"))
CLIENTS = 1_000 if FULL else 60
OUTAGE_S = 20 if FULL else 5
FROZEN_S = 10 if FULL else 1
NO_LIMITS: dict[str, Any] = {"connections_per_address": 100_000, "connections_per_user": 100_000}
MAY_GROW = 64 * MIB


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


@asynccontextmanager
async def gateways(site: Site, folder: Path, count: int, **limits: Any) -> AsyncIterator[list[GatewayProcess]]:
    """Processes on one port. At the end none of them has said anything of a fault."""
    made = [GatewayProcess(site, folder / f"gateway-{i}.log", **(NO_LIMITS | limits)) for i in range(count)]
    try:
        for gateway in made:
            gateway.port = made[0].port
            await asyncio.to_thread(gateway.start)
        yield made
        assert [fault for gateway in made for fault in gateway.faults] == []
    finally:
        for gateway in made:
            await asyncio.to_thread(gateway.stop)


@asynccontextmanager
async def following(port: int, count: int, dice: random.Random) -> AsyncIterator[list[Follower]]:
    """Clients that stay; a third of them with a filter."""
    followers = [Follower(port, dice, BELOW_5 if i % 3 == 0 else None) for i in range(count)]
    tasks = [asyncio.create_task(follower.run()) for follower in followers]
    try:
        await until(lambda: all(f.ready.is_set() for f in followers))
        yield followers
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_clients_of_killed_and_frozen_gateways_resume_exactly(site: Site, tmp_path: Path) -> None:
    dice = random.Random(1)
    async with (
        gateways(site, tmp_path, 2) as (one, two),
        Writer(site, dice) as writer,
        following(one.port, CLIENTS, dice) as followers,
    ):
        await writer.some(30)
        await until_told(site, followers)
        one.signal(signal.SIGSTOP)
        await writer.some(60)
        await asyncio.sleep(FROZEN_S)
        one.signal(signal.SIGCONT)
        await until_told(site, followers)
        for victim, other in ((one, two), (two, one))[: 2 if FULL else 1]:
            before = other.memory
            writing = asyncio.create_task(writer.some(60))
            victim.signal(signal.SIGKILL)
            await writing
            await writer.some(20)
            await until_told(site, followers)
            assert other.memory - before < MAY_GROW
            if FULL:
                await asyncio.to_thread(victim.start)
        assert {code for f in followers for code in f.codes} == {1006}
        assert sum(f.resumed for f in followers) == sum(len(f.codes) for f in followers) > 0
        assert [f.refused for f in followers if any(not r["retry"] for r in f.refused)] == []


async def test_clients_stay_while_the_broker_is_down_and_then_miss_nothing(namespace: str, tmp_path: Path) -> None:
    dice = random.Random(2)
    with contextlib.ExitStack() as stack:
        broker = await asyncio.to_thread(stack.enter_context, EmbeddedBroker(tmp_path / "kafka"))
        site = Site(broker.bootstrap, namespace, tmp_path)
        await site.make()
        async with (
            gateways(site, tmp_path, 1) as (gateway,),
            following(gateway.port, CLIENTS, dice) as followers,
            Writer(site, dice) as writer,
        ):
            await writer.some(30)
            await until_told(site, followers)
            await asyncio.to_thread(broker.kill)
            late = asyncio.create_task(writer.some(60))
            await asyncio.sleep(OUTAGE_S)
            before = gateway.memory
            await asyncio.to_thread(broker.start, 60)
            await late
            await until_told(site, followers)
            assert [f.codes for f in followers if f.codes] == []
            assert gateway.memory - before < MAY_GROW


async def test_what_strangers_write_on_the_log_harms_no_client(site: Site, tmp_path: Path) -> None:
    dice, told = random.Random(8), list[Any]()
    async with gateways(site, tmp_path, 1) as (gateway,), Writer(site, dice) as writer:
        line = await dial(gateway.port, told.append)
        for channel in ("entities/vm", "entities/task", "inbox"):
            line.say(id=channel, subscribe={"channel": channel})
        await until(lambda: len(told) == 3)
        for _ in range(20_000 if FULL else 1_500):
            await writer.odd(dice.choice((NOTICES, NOTICES, NOTICES, VM, "entities.task", CONTROLS)))
        wanted = raised("u1")
        await writer.say(NOTICES, "u1", wanted)
        await writer.one("last", 1)
        await until(lambda: any(f.get("event", {}).get("id") == "last" for f in told))
        await until(lambda: any(f.get("event", {}).get("notice", {}).get("id") == wanted.notice_id for f in told))
        assert not line.over.done()
        line.transport.abort()


async def test_of_clients_that_come_and_go_nothing_stays(site: Site) -> None:
    dice, limits = random.Random(6), Limits(**NO_LIMITS)
    async with site.gateway(limits=limits) as door, Writer(site, dice) as writer:
        gateway = door.server.gateway
        coming = asyncio.create_task(come_and_go(door.server.port, dice, 1_200 if FULL else 240))
        while not coming.done():
            await writer.some(5)
        await coming
        await until(lambda: not gateway.connections)
        await until(lambda: not any(gateway.inboxes.watches(f"u{i}".encode()) for i in range(5)))
        assert gateway.entities["vm"]._fan_out.groups == {}
        assert gateway.admission._users == gateway.admission._addresses == {}


# ---- peers
@pytest.fixture(scope="module")
def world(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, GatewayProcess]]:
    folder = tmp_path_factory.mktemp("peers")
    site = Site(kafka, f"t{random.Random(str(folder)).randrange(2**32):x}-", folder)
    asyncio.run(site.make())
    gateway = GatewayProcess(site, folder / "gateway.log", ping_interval=0.5, write_buffer=512 * 1024, **NO_LIMITS)
    gateway.start()
    try:
        yield site, gateway
        assert gateway.alive
        assert gateway.faults == []
    finally:
        gateway.stop()


class Hole:
    """Forwards to a gateway until it holds still: nothing comes through any more, and nobody is told."""

    def __init__(self, port: int) -> None:
        self._to, self._open, self._pipes = port, asyncio.Event(), set[asyncio.Task[None]]()
        self._open.set()

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]
            for pipe in self._pipes:
                pipe.cancel()

    def hold_still(self) -> None:
        self._open.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self._to, limit=2**12)
        for a, b in ((reader, there[1]), (there[0], writer)):
            self._pipes.add(asyncio.create_task(self._pump(a, b)))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(2**12):
            await self._open.wait()
            writer.write(data)
            await writer.drain()


async def test_peers_that_vanished_are_found_out_also_when_something_waits_for_them(
    world: tuple[Site, GatewayProcess],
) -> None:
    site, gateway = world
    dice, hole = random.Random(3), Hole(gateway.port)
    async with hole() as port, Writer(site, dice) as writer:
        lines = [await dial(port, lambda _: None) for _ in range(20)]
        for line in lines[:10]:
            line.say(id=1, subscribe={"channel": "entities/task"})
        for line in lines[10:]:
            line.say(id=1, subscribe={"channel": "entities/vm"})
        await until(lambda: gateway.peers == 20)
        hole.hold_still()
        await writer.some(40, 20_000)
        await until(lambda: gateway.peers == 0)
        for line in lines:
            line.transport.abort()


async def test_who_never_reads_is_cut_off_at_the_cap_and_others_are_told_all(
    world: tuple[Site, GatewayProcess],
) -> None:
    site, gateway = world
    dice, heard = random.Random(4), list[str]()
    async with Writer(site, dice) as writer:
        good = await dial(gateway.port, lambda frame: heard.append(frame.get("event", {}).get("id", "")))
        good.say(id=1, subscribe={"channel": "entities/vm", "snapshot": False})
        lazy = [await dial(gateway.port, lambda _: None) for _ in range(20)]
        for line in lazy:
            line.say(id=1, subscribe={"channel": "entities/vm", "snapshot": False})
        await until(lambda: heard and gateway.peers == 21)
        for line in lazy:
            line.transport.pause_reading()
        before, told = gateway.memory, len(heard)
        for _ in range(10):
            await writer.some(40, 20_000)
        await until(lambda: gateway.peers == 1)
        assert gateway.memory - before < MAY_GROW
        ended = await writer.one("last", 0)
        await until(lambda: ended in heard)
        assert len(heard) - told > 300
        for line in (good, *lazy):
            line.transport.abort()


async def test_answers_that_nobody_reads_hold_little_and_large_lists_come_in_more_pages(
    world: tuple[Site, GatewayProcess],
) -> None:
    _, gateway = world
    headers = {"authorization": f"Bearer {token()}"}
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers) as http:
        sent = [await http.put(f"/v1/entities/task/t{i:02}", json={"x": "y" * 200_000}) for i in range(40)]
        ids, cursor = list[str](), ""
        while cursor is not None:
            query = {"limit": "100", "at_least": sent[-1].json()["position"]} | ({"cursor": cursor} if cursor else {})
            page = (await http.get("/v1/entities/task", params=query)).json()
            ids, cursor = ids + [item["id"] for item in page["items"]], page["next"]
        assert ids == [f"t{i:02}" for i in range(40)]
        before = gateway.memory
        peers = [await asyncio.open_connection("127.0.0.1", gateway.port, limit=1) for _ in range(20)]
        for _, asking in peers:
            signed = f"host: a\r\nauthorization: Bearer {token()}\r\n\r\n"
            asking.write(f"GET /v1/entities/task?limit=100 HTTP/1.1\r\n{signed}".encode() * 50)
        assert (await http.get("/healthz")).status_code == 200
        assert gateway.memory - before < MAY_GROW
        for _, asking in peers:
            asking.transport.abort()
        assert (await http.get("/healthz")).status_code == 200
    await until(lambda: gateway.peers == 0)
    assert gateway.faults == []


async def test_clients_that_come_and_go_break_nothing(world: tuple[Site, GatewayProcess]) -> None:
    _, gateway = world
    before = gateway.memory
    await come_and_go(gateway.port, random.Random(7), 1_200 if FULL else 240)
    await until(lambda: gateway.peers == 0)
    assert gateway.memory - before < MAY_GROW
    assert gateway.faults == []


async def test_rubbish_over_and_over_costs_the_connection_and_nobody_else(world: tuple[Site, GatewayProcess]) -> None:
    _, gateway = world
    rubbish = (b"x" * 65_000, b'{"id":1,"subscribe":{"channel":"' + b"y" * 64_000 + b'"}}', b"[" * 65_000)
    answers: list[Any] = []
    good = await dial(gateway.port, answers.append)
    before = gateway.memory
    for turn in range(60 if FULL else 15):
        line = await dial(gateway.port, lambda _: None)
        for _ in range(30):
            line.send(1, rubbish[turn % 3])
        assert await asyncio.wait_for(line.over, 20) == 4400
        good.say(id=turn, ping={})
        await until(lambda turn=turn: {"id": turn, "ok": {}} in answers)  # type: ignore[misc]
    assert gateway.memory - before < MAY_GROW
    good.transport.abort()


async def test_a_thousand_subscriptions_each_with_a_filter_of_its_own(world: tuple[Site, GatewayProcess]) -> None:
    site, gateway = world
    answered, heard = list[int](), list[tuple[int, str]]()
    before = gateway.memory

    def hear(who: int, frame: Any) -> None:
        if "ok" in frame:
            answered.append(who)
        elif "event" in frame:
            heard.append((who, frame["event"]["id"]))

    lines: list[Line] = []
    for i in range(500):
        lines.append(await dial(gateway.port, lambda frame, i=i: hear(i, frame)))  # type: ignore[misc]
        for channel in ("vm", "task"):
            mine = {"key": "n", "op": "eq", "val": i if channel == "vm" else -1}
            lines[-1].say(id=channel, subscribe={"channel": f"entities/{channel}", "snapshot": False, "filter": mine})
    await until(lambda: len(answered) == 1_000)
    async with Writer(site, random.Random(5)) as writer:
        for n in (7, 499, 250):
            await writer.one(f"n{n}", n)
    await until(lambda: len(heard) >= 3)
    assert sorted(heard) == [(7, "n7"), (250, "n250"), (499, "n499")]
    assert gateway.memory - before < MAY_GROW
    for line in lines:
        line.transport.abort()
    await until(lambda: gateway.peers == 0)


async def test_a_storm_of_subscriptions_is_answered_or_sent_away(world: tuple[Site, GatewayProcess]) -> None:
    _, gateway = world
    answers: list[Any] = []
    good = await dial(gateway.port, answers.append)
    before, lines = gateway.memory, list[Line]()
    for _ in range(30):
        lines.append(await dial(gateway.port, lambda _: None))
        for turn in range(600):
            request = "unsubscribe" if turn % 2 else "subscribe"
            lines[-1].say(id=turn, **{request: {"channel": "entities/vm"}})
    good.say(id="x", ping={})
    await until(lambda: {"id": "x", "ok": {}} in answers)
    codes = {await asyncio.wait_for(line.over, 30) for line in lines}
    assert codes == {4429}
    assert gateway.memory - before < MAY_GROW
    good.transport.abort()
