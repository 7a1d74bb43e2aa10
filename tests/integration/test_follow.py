"""The follower of a gateway hands over what a consumer of aiokafka reads, once and in order, whatever happens to its
connection.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import OffsetOutOfRangeError

from topics.catalogue import Catalogue, entity_topic
from topics.cluster import Cluster
from topics.fetch import Spot, reading
from topics.follow import Follower, following
from topics.provision import apply

VM, DISK = entity_topic("vm"), entity_topic("disk")
Read = dict[Spot, list[tuple[int, int, bytes | None, bytes | None]]]


class Written:
    """A log of two topics with two partitions each, and a producer."""

    def __init__(self, kafka: str, namespace: str) -> None:
        self.cluster, self.catalogue = Cluster(kafka), Catalogue(("vm", "disk"), namespace, 2)
        apply(self.cluster, self.catalogue)
        self.spots = [Spot(t, p) for t in (VM, DISK) for p in range(2)]

    async def write(self, first: int, count: int, how: str = "") -> None:
        """Records with these numbers, taking turns among the partitions; `how`: compressed, or a transaction's end."""
        transaction = {"transactional_id": f"{self.catalogue.prefix}{first}"} if how in ("commit", "abort") else {}
        compression = how if how and not transaction else None
        arguments = self.cluster.for_aiokafka() | transaction
        async with AIOKafkaProducer(**arguments, acks="all", linger_ms=5, compression_type=compression) as producer:
            if transaction:
                await producer.begin_transaction()
            sent = []
            for n in range(first, first + count):
                spot = self.spots[n % len(self.spots)]
                value = None if n % 7 == 0 else b"%d" % n * 100
                where = self.catalogue.physical(spot.topic), value, b"k%d" % n, spot.partition
                sent.append(await producer.send(*where))
            await asyncio.gather(*sent)
            if transaction:
                await (producer.commit_transaction() if how == "commit" else producer.abort_transaction())

    async def by_a_consumer(self, positions: Mapping[Spot, int]) -> Read:
        """What stands there from these positions on."""
        found: Read = defaultdict(list)
        async with reading(self.cluster, self.catalogue) as reader:
            ends = await reader.ends(self.spots)
            await reader.seek(dict(positions))
            while [s for s in self.spots if await reader.position(s) < ends[s]]:
                for m in await reader.poll():
                    spot = Spot(self.catalogue.logical(m.topic), m.partition)
                    found[spot].append((m.offset, m.timestamp, m.key, m.value))
        return found


@pytest.fixture
async def written(kafka: str, namespace: str) -> Written:
    return await asyncio.to_thread(Written, kafka, namespace)


async def _take(follower: Follower, found: Read, enough: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not enough():
            for spot, messages, reached in await follower.messages():
                assert {m.partition for m in messages} <= {spot.partition}
                assert all(m.offset < reached for m in messages)
                if messages:
                    found[spot] += [(m.offset, m.timestamp, m.key, m.value) for m in messages]


async def test_it_reads_what_a_consumer_reads_through_every_loss(written: Written) -> None:
    for first, how in enumerate(("", "gzip", "commit", "abort", "")):
        await written.write(first * 50, 50, how)
    begin = {spot: 3 * i for i, spot in enumerate(written.spots)}
    found: Read = defaultdict(list)

    def all_of(count: int) -> bool:
        last = {written.spots[n % 4]: b"k%d" % n for n in range(count - 4, count)}
        return {spot: read[-1][2] for spot, read in found.items()} == last

    async with following(written.cluster, written.catalogue, begin) as follower:
        await _take(follower, found, lambda: all_of(250))
        (link,) = follower._links
        link._transport.abort()
        await written.write(250, 40)
        await _take(follower, found, lambda: not link.open and all_of(290))
        (link,) = follower._links
        link._epoch += 7  # as when the broker knows the session no longer
        await written.write(290, 40)
        await _take(follower, found, lambda: not link.open and all_of(330))
        await _take(follower, found, lambda: bool(follower._links))
        (link,) = follower._links
        link.asked = float("-inf")  # as when it has not answered for long
        await written.write(330, 40)
        await _take(follower, found, lambda: all_of(370))
        expected = await written.by_a_consumer(begin)
        assert found == expected
        ends = {spot: follower.ends_heard(spot)[0] for spot in written.spots}
        assert ends == {spot: read[-1][0] + 1 for spot, read in found.items()}


async def test_where_a_transaction_ends_it_comes_to_the_end(written: Written) -> None:
    await written.write(0, 8, "commit")
    reached = dict.fromkeys(written.spots, 0)
    async with following(written.cluster, written.catalogue, reached) as follower, asyncio.timeout(30):
        while not all(0 < follower.ends_heard(spot)[0] == reached[spot] for spot in written.spots):
            reached |= {spot: at for spot, _, at in await follower.messages()}


async def test_a_position_that_is_off_the_log_is_told(written: Written) -> None:
    await written.write(0, 8)
    positions = dict.fromkeys(written.spots, 0) | {Spot(DISK, 1): 1000}
    found: Read = defaultdict(list)
    async with following(written.cluster, written.catalogue, positions) as follower:
        with pytest.raises(OffsetOutOfRangeError):
            await _take(follower, found, lambda: False)
