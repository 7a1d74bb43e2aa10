"""Two gateway processes share a port, and one of them is replaced under its clients: nobody misses a change."""

import asyncio
import json
import random
import signal
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import websockets

from tests.integration.gateway_process import GatewayProcess, token
from tests.integration.gateway_world import Site, Talk
from topics.catalogue import entity_topic
from topics.events import EntityChanged
from topics.ids import new_id
from topics.produce import Producer, now_us

CLIENTS = 24
IDS = ("a", "b", "c")


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


class Client:
    """Holds what it was told of each entity, in its order, and why its connections ended."""

    def __init__(self, url: str, user: str) -> None:
        self._url, self._token = url, token(user)
        self.told: defaultdict[str, list[int]] = defaultdict(list)
        self.position: str | None = None
        self.ends: Counter[int | None] = Counter()

    async def run(self) -> None:
        """Comes back whenever it is sent away."""
        while True:
            try:
                async with websockets.connect(self._url) as ws:
                    await self._watch(Talk(ws))
            except websockets.ConnectionClosed as closed:
                self.ends[closed.rcvd.code if closed.rcvd else None] += 1
            except OSError:  # it was in the queue of a gateway that listens no longer
                self.ends[0] += 1
            await asyncio.sleep(random.uniform(0, 0.05))

    async def _watch(self, talk: Talk) -> None:
        await talk.ask(auth={"token": self._token})
        asked = {"channel": "entities/vm"} | ({"since": self.position} if self.position else {})
        answer = await talk.ask(subscribe=asked)
        assert answer.get("resumed", False) is (self.position is not None), answer
        self.position = answer["position"]
        while True:
            frame = await talk.push()
            self.position = frame["position"]
            if "event" in frame:
                self.told[frame["event"]["id"]].append(frame["entity"]["n"])


async def test_a_gateway_is_replaced_under_its_clients(site: Site, tmp_path: Path, free_ports: tuple[int, int]) -> None:
    one, two = (GatewayProcess(site, tmp_path / f"{name}.log", port=free_ports[0]) for name in ("one", "two"))
    producer, over = Producer(site.cluster, site.catalogue, "test"), asyncio.Event()
    written: defaultdict[str, list[int]] = defaultdict(list)

    async def write() -> None:
        number = 0
        while not over.is_set():
            number += 1
            entity_id = random.choice(IDS)
            body = json.dumps({"n": number}).encode()
            event = EntityChanged(
                event_id=new_id(),
                producer="test",
                occurred_at=now_us(),
                entity_type="vm",
                entity_id=entity_id,
                op="updated",
                version=None,
                at=None,
                body=body,
            )
            await producer.send(entity_topic("vm"), entity_id, event)
            written[entity_id].append(number)
            await asyncio.sleep(0.02)  # all the clients are in this process

    try:
        await asyncio.gather(asyncio.to_thread(one.start), asyncio.to_thread(two.start))
        clients = [Client(one.live, f"u{i}") for i in range(CLIENTS)]
        tasks = [asyncio.create_task(c.run()) for c in clients]
        async with asyncio.timeout(30):
            while not all(c.position for c in clients):  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.01)
        writing = asyncio.create_task(write())
        one.signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while one.alive:  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.01)
        await asyncio.to_thread(one.start)
        over.set()
        await writing
        async with asyncio.timeout(30):
            while not all(c.told == written or any(t.done() for t in tasks) for c in clients):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert [c.told for c in clients] == [written] * CLIENTS
        ends = sum((c.ends for c in clients), Counter[int | None]())
        assert 0 < ends[4501] < CLIENTS  # the kernel deals out connections: some were on the other one
        assert ends.keys() <= {4501, 0}, ends
        for task in tasks:
            task.cancel()
        assert one.faults == two.faults == []
    finally:
        for gateway in (one, two):
            gateway.signal(signal.SIGKILL)
            gateway.stop()
        await producer.stop()
