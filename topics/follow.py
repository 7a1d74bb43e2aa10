"""Following the log: one fetch is under way at each broker for all partitions at once, for a reader to whom single
records come as they are written.

aiokafka's consumer has several tasks for a fetch, which is nothing beside a thousand records and nearly everything
beside one; here its connections are read as they are.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError
from aiokafka.structs import BrokerMetadata

from topics.catalogue import Catalogue
from topics.cluster import Cluster, connect
from topics.fetch import Spot
from topics.fetch_link import Connection, Link, Message, Part

log = logging.getLogger(__name__)
ANSWER_S = 20.0
ROUND_S = 0.5
PAUSE_S = 0.1  # before those are asked anew whose broker was lost


class Follower:
    """All partitions of `positions` (the offsets that are read next), from there on, by one reader.

    A broker that goes away is waited for, and partitions that move are followed.
    """

    def __init__(self, cluster: Cluster, catalogue: Catalogue, positions: Mapping[Spot, int]) -> None:
        self._arguments = cluster.for_aiokafka()
        self._client = _Client(**self._arguments, metadata_max_age_ms=30_000, request_timeout_ms=20_000)
        del self._arguments["bootstrap_servers"]
        self._parts = {
            s: Part(s, TopicPartition(catalogue.physical(s.topic), s.partition), at) for s, at in positions.items()
        }
        self._links: list[Link] = []
        self._answered: list[Link] = []
        self._read: list[Link] = []  # and not asked again
        self._wake = asyncio.Event()
        self._lost = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Connect. KafkaError when no broker is there."""
        await connect(self._client)
        await self._client.set_topics({p.tp.topic for p in self._parts.values()})
        self._keeper = asyncio.create_task(self._keep())
        self._tick()

    async def stop(self) -> None:
        """Close all connections."""
        if self._timer is not None:
            self._timer.cancel()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        for link in list(self._links):
            link.close("stopped")
        await self._client.close()

    def ends_heard(self, spot: Spot) -> tuple[int, float]:
        """The offset after the last record as the broker last said, and when that was (s since 1970); 0: never."""
        part = self._parts[spot]
        return part.end, part.link.heard if part.link else 0.0

    async def messages(self) -> list[tuple[Spot, list[Message], int]]:
        """What has come, by partition and in its order, and the offset that is read next; after half a second without
        anything, nothing.

        OffsetOutOfRangeError if a position is off the log; other KafkaErrors.
        """
        for link in self._read:  # not before: a broker at work on this machine would be in the way of what they say
            if link.open:
                link.ask()
        self._read = []
        if not self._answered:
            self._wake.clear()
            await self._wake.wait()
        if self._keeper is not None and self._keeper.done():
            self._keeper.result()
        answered, self._answered = self._answered, []
        found = [some for link in answered if link.open for some in link.read()]
        self._read = answered
        return found

    def answered(self, link: Link) -> None:
        """By a link, which has an answer."""
        self._answered.append(link)
        self._wake.set()

    def lost(self, link: Link, reason: str) -> None:
        """By a link that is closed."""
        self._links.remove(link)
        self._lost.set()
        if reason != "stopped":
            log.info("broker to be asked anew node=%s reason=%s", link.node, reason)

    def _tick(self) -> None:
        self._wake.set()
        self._timer = asyncio.get_running_loop().call_later(ROUND_S, self._tick)

    async def _keep(self) -> None:
        """See that every partition is asked of the broker that leads it."""
        sure = True  # who leads them
        while True:
            for link in [k for k in self._links if not k.answer and time.monotonic() - k.asked > ANSWER_S]:
                link.close("silent")
            sure = (sure or await self._client.force_metadata_update()) and await self._connect()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ROUND_S):
                    await self._lost.wait()
                self._lost.clear()
                sure = False
                await asyncio.sleep(PAUSE_S)

    async def _connect(self) -> bool:
        """Ask for those that are asked of nobody; whether that is possible."""
        by_leader: dict[int | None, list[Part]] = defaultdict(list)
        for part in self._parts.values():
            if part.link is None or not part.link.open:
                by_leader[self._client.cluster.leader_for_partition(part.tp)].append(part)
        there = True
        for node, parts in by_leader.items():
            broker = self._client.cluster.broker_metadata(node)
            there = there and broker is not None and await self._ask(broker, parts)
        return there

    async def _ask(self, broker: BrokerMetadata, parts: list[Part]) -> bool:
        connection = Connection(broker.host, broker.port, **self._arguments, request_timeout_ms=int(ANSWER_S * 1000))
        try:
            await connection.connect()
        except (OSError, TimeoutError, KafkaError) as error:
            log.info("broker can't be asked node=%s error=%s", broker.nodeId, type(error).__name__)
            return False
        link = Link(self, broker.nodeId, parts)
        connection.hand_over(link)
        self._links.append(link)
        for part in parts:
            part.link = link
        link.ask()
        return True


class _Client(AIOKafkaClient):  # type: ignore[misc]
    """Knows who leads what."""

    async def start(self) -> None:
        await self.bootstrap()


@asynccontextmanager
async def following(cluster: Cluster, catalogue: Catalogue, positions: Mapping[Spot, int]) -> AsyncIterator[Follower]:
    """A follower for a while."""
    follower = Follower(cluster, catalogue, positions)
    try:
        await follower.start()
        yield follower
    finally:
        await follower.stop()
