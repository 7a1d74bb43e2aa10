"""Many thin clients of the live protocol that go through anything and come back, and an oracle of what each has to have
been told, written apart from the gateway: it reads the log itself.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Self

from tests.integration.gateway_process import token
from tests.integration.gateway_world import Site
from tests.integration.odd_records import odd
from tests.integration.worker_site import entity
from topics.catalogue import NOTICES, entity_topic
from topics.events import EntityChanged, Event, Record
from topics.fetch import reading
from topics.partition import partition_of
from topics.produce import Producer

VM = entity_topic("vm")
BELOW_5 = {"key": "n", "op": "lt", "val": 5}
Told = tuple[str, str, int | None]  # op, id, version
HEAD = (
    "GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nauthorization: Bearer {}\r\n\r\n"
)


class Line(asyncio.Protocol):
    """One connection: JSON text goes out, JSON values come in; `over` is its close code (1006 without one)."""

    def __init__(self, signed: str, hear: Callable[[Any], None]) -> None:
        self._head, self._hear, self._came, self._open = HEAD.format(signed).encode(), hear, b"", False
        self._code = 1006
        self.over: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.met: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._head)

    def say(self, **request: Any) -> None:
        """One text message."""
        self.send(1, json.dumps(request).encode())

    def send(self, opcode: int, payload: bytes) -> None:
        """One frame."""
        size = len(payload)
        head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else bytes((0x80 | opcode, 0xFE)) + size.to_bytes(2)
        self.transport.write(head + b"\0\0\0\0" + payload)

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._open:
            head, found, self._came = self._came.partition(b"\r\n\r\n")
            if not found:
                self._came = head
                return
            self._open = b" 101 " in head
            if not self._open:
                self.transport.abort()
                return
            self.met.set_result(None)
        at = 0
        while len(self._came) >= at + 2:
            size, begin = self._came[at + 1], at + 2
            if size > 125:
                width = 2 if size == 126 else 8
                size, begin = int.from_bytes(self._came[begin : begin + width]), begin + width
            if len(self._came) < begin + size:
                break
            self._frame(self._came[at] & 15, self._came[begin : begin + size])
            at = begin + size
        self._came = self._came[at:]

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 1:
            self._hear(json.loads(payload))
        elif opcode == 9:
            self.send(10, payload)
        elif opcode == 8:
            self._code = int.from_bytes(payload[:2])
            self.send(8, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self.over.set_result(self._code)
        if not self.met.done():
            self.met.set_exception(ConnectionError("not let in"))


async def dial(port: int, hear: Callable[[Any], None], user: str = "u1") -> Line:
    """A connection to whoever listens there. OSError."""
    loop = asyncio.get_running_loop()
    _, line = await loop.create_connection(lambda: Line(token(user), hear), "127.0.0.1", port)
    await line.met
    return line


class Follower:
    """A client that holds a position, and comes back with it whenever it is sent or cut away."""

    def __init__(self, port: int, dice: random.Random, wanted: dict[str, Any] | None = None) -> None:
        self.port, self.wanted, self._dice = port, wanted, dice
        self.position: str | None = None
        self.told: list[Told] = []
        self.held: set[str] = set()
        self.resumed, self.codes = 0, list[int]()
        self.refused: list[Any] = []
        self.ready = asyncio.Event()
        self.line: Line | None = None

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                try:
                    self.line = await dial(self.port, self.hear, f"u{id(self) % 100}")
                except OSError:  # nobody listens there now
                    await asyncio.sleep(self._dice.uniform(0.02, 0.1))
                    continue
                since = {"since": self.position} if self.position else {}
                wanted = {"filter": self.wanted} if self.wanted else {}
                self.line.say(id=1, subscribe={"channel": "entities/vm", **wanted, **since})
                self.codes.append(await self.line.over)
                self.ready.clear()
                await asyncio.sleep(self._dice.uniform(0.0, 0.05))
        finally:
            if self.line is not None:
                self.line.transport.abort()

    def hear(self, frame: Any) -> None:
        """An answer or a push."""
        if "error" in frame:
            self.refused.append(frame["error"])
            if self.line is not None:
                self.line.transport.abort()
            return
        if "ok" in frame:
            assert not frame["ok"].get("snapshot"), "it began before there was anything"
            self.resumed += bool(frame["ok"].get("resumed"))
            self.ready.set()
            self.position = frame["ok"]["position"]
            return
        self.position = frame["position"]
        event = frame.get("event")
        if event is None or (event["op"] in ("left", "deleted") and event["id"] not in self.held):
            return  # an id that it does not hold is no news to it
        (self.held.discard if event["op"] in ("left", "deleted") else self.held.add)(event["id"])
        self.told.append((event["op"], event["id"], event.get("version")))


class Writer:
    """Writes entities straight to the log; what became of them is asked of the log."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self._site, self._dice = site, dice
        self._producer = Producer(site.cluster, site.catalogue, "test")

    async def __aenter__(self) -> Self:
        await self._producer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def some(self, count: int, size: int = 20) -> None:
        """Changes of few entities, some of them deletions, all acknowledged."""
        sent = []
        for _ in range(count):
            entity_id = f"e{self._dice.randrange(12)}"
            body = json.dumps({"n": self._dice.randrange(10), "x": "y" * size}).encode()
            event = entity(entity_id, body)
            if self._dice.random() < 0.2:
                event = replace(event, op="deleted", body=None)
            sent.append(await self._producer.enqueue(VM, entity_id, event))
        await asyncio.gather(*sent)

    async def one(self, entity_id: str, n: int) -> str:
        """One change; its id."""
        await self.say(VM, entity_id, entity(entity_id, json.dumps({"n": n}).encode()))
        return entity_id

    async def say(self, topic: str, key: str, event: Event) -> None:
        """Anything else."""
        await self._producer.send(topic, key, event)

    async def odd(self, topic: str) -> None:
        """What no program of ours would write, for those whom it might concern."""
        key = self._dice.choice(("u1", "u1", "u2", "e1", "") if topic == NOTICES else ("e1", "e2", "u1", ""))
        await self._producer.enqueue_bytes(topic, key, odd(self._dice))


async def changes(site: Site) -> list[tuple[int, int, str, int | None]]:
    """All that stands on the log of an entity: partition, offset, id, and its `n`, null if it was deleted."""
    found = []
    async with reading(site.cluster, site.catalogue) as reader:
        for spot, end in (await reader.ends(reader.spots([VM]))).items():
            async for record in reader.range(spot, 0, end):
                event = record.event if isinstance(record, Record) else None
                if isinstance(event, EntityChanged):
                    n = json.loads(event.body)["n"] if event.body else None
                    found.append((spot.partition, record.offset, event.entity_id, n))
    return found


def expected(log: list[tuple[int, int, str, int | None]], wanted: dict[str, Any] | None) -> dict[int, list[Told]]:
    """By partition, what who has followed since the beginning has to have been told, in order: from the log alone.

    `wanted` is `n` below a number. A version is the record's offset, as nobody here gives one.
    """
    out: dict[int, list[Told]] = defaultdict(list)
    below = wanted["val"] if wanted else 10
    held: set[str] = set()
    for partition, offset, entity_id, n in log:
        if n is not None and n < below:
            held.add(entity_id)
            out[partition].append(("updated", entity_id, offset))
        elif entity_id in held:
            out[partition].append(("deleted", entity_id, offset) if n is None else ("left", entity_id, None))
            held.discard(entity_id)
    return out


def by_partition(told: Iterable[Told], partitions: int) -> dict[int, list[Told]]:
    """What one was told, in its order."""
    out: dict[int, list[Told]] = defaultdict(list)
    for op, entity_id, version in told:
        out[partition_of(entity_id, partitions)].append(("updated" if op == "created" else op, entity_id, version))
    return out


async def until(holds: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition that nobody signals."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def until_told(site: Site, followers: list[Follower], seconds: float = 60) -> None:
    """Wait until all have been told as much as there was to tell; then it has to be that, in that order."""
    log = await changes(site)
    truths = {json.dumps(wanted): expected(log, wanted) for wanted in (None, BELOW_5)}
    counts = {name: sum(map(len, truth.values())) for name, truth in truths.items()}
    try:
        await until(lambda: all(len(f.told) >= counts[json.dumps(f.wanted)] for f in followers), seconds)
    except TimeoutError:
        behind = [(len(f.told), counts[json.dumps(f.wanted)], f.codes, f.refused[-1:]) for f in followers]
        raise AssertionError(f"told too little: {[b for b in behind if b[0] < b[1]][:5]}") from None
    for follower in followers:
        assert by_partition(follower.told, site.catalogue.partitions) == truths[json.dumps(follower.wanted)]
