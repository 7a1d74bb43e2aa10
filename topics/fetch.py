"""Reading the log with asyncio: a group-less consumer, ranges of it, its end, its epoch.

For readers that follow everything themselves (gateway, rebuilds, checks of positions). What can't be decoded is handed
over as Broken, never skipped in silence.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from topics.catalogue import DEAD_LETTERS, SCHEMAS, TOPIC_OPENED_KEY, Catalogue
from topics.cluster import REQUEST_BYTES, Cluster, connect
from topics.codec import Undecodable, UnknownSchema, decode, learn
from topics.dead_letters import DeadLetter, from_headers
from topics.events import Record, SchemaPublished, TopicOpened

log = logging.getLogger(__name__)

T = TypeVar("T")


class Spot(NamedTuple):
    """One partition, by the catalogue's name."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A record whose bytes are no event of ours."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes
    reason: str


Item = Record | Broken | DeadLetter


def to_item(catalogue: Catalogue, message: Any) -> Item:
    """As `to_record`; what stands on `dead-letters` comes as DeadLetter."""
    if catalogue.logical(message.topic) != DEAD_LETTERS:
        return to_record(catalogue, message)
    found = to_record(catalogue, message) if not message.headers else None
    if isinstance(found, Record) and found.event:
        return found
    return from_headers(message.partition, message.offset, message.timestamp, message.value, message.headers or ())


def to_record(catalogue: Catalogue, message: Any) -> Record | Broken:
    """From a client's message. UnknownSchema is raised: the reader has to wait for the schema."""
    return record_at(Spot(catalogue.logical(message.topic), message.partition), message)


def record_at(spot: Spot, message: Any) -> Record | Broken:
    """As `to_record`, of a message that need not say on which partition it stands."""
    topic, partition = spot
    try:
        key = (message.key or b"").decode()
        if "\0" in key and key != TOPIC_OPENED_KEY:
            msg = "the key holds NUL"
            raise Undecodable(msg)
        event = decode(message.value) if message.value is not None else None
    except (Undecodable, UnicodeDecodeError) as error:
        reason = str(error) if isinstance(error, Undecodable) else "the key is not UTF-8"
        return Broken(topic, partition, message.offset, message.timestamp, message.key, message.value or b"", reason)
    return Record(topic, partition, message.offset, message.timestamp, key, event, message.value or b"")


class LogReader:
    """A group-less consumer of the catalogue's topics.

    It fetches at most `piece` bytes of a partition at a time; where there is nothing, the broker waits for `wait_ms`.
    """

    def __init__(self, cluster: Cluster, catalogue: Catalogue, piece: int = REQUEST_BYTES, wait_ms: int = 500) -> None:
        self._cluster, self._catalogue = cluster, catalogue
        self.consumer = AIOKafkaConsumer(
            **cluster.for_aiokafka(),
            enable_auto_commit=False,
            auto_offset_reset="none",
            max_partition_fetch_bytes=piece,
            fetch_max_wait_ms=wait_ms,
            request_timeout_ms=20_000,
            metadata_max_age_ms=30_000,
        )

    async def start(self) -> None:
        """Connect. KafkaError when the broker is away."""
        await connect(self.consumer)

    async def stop(self) -> None:
        """Close within 10 s, whatever the broker does."""
        try:
            await asyncio.wait_for(self.consumer.stop(), 10)
        except (TimeoutError, KafkaError) as error:
            log.warning("a reader did not close in time error=%s", type(error).__name__)

    def spots(self, topics: Iterable[str]) -> list[Spot]:
        """All partitions of `topics`, as the catalogue declares them."""
        known = self._catalogue.topics()
        return [Spot(t, p) for t in topics for p in range(known[t].partitions)]

    async def ends(self, spots: Iterable[Spot]) -> dict[Spot, int]:
        """The offset after the last record of each."""
        found = await self.consumer.end_offsets(self._known(spots))
        return {self._spot(tp): offset for tp, offset in found.items()}

    async def starts(self, spots: Iterable[Spot]) -> dict[Spot, int]:
        """The first offset that is still there."""
        found = await self.consumer.beginning_offsets(self._known(spots))
        return {self._spot(tp): offset for tp, offset in found.items()}

    def _known(self, spots: Iterable[Spot]) -> list[TopicPartition]:
        """Partitions of which the client knows the leaders: it would learn them topic by topic, 0.1 s each."""
        parts = [self._tp(s) for s in spots]
        if not self.consumer.assignment():
            self.consumer.assign(parts)
            self.consumer.pause(*parts)
            for part in parts:  # a position, or it would be looked for, and none is kept anywhere
                self.consumer.seek(part, 0)
        return parts

    async def seek(self, positions: dict[Spot, int]) -> None:
        """Read exactly these partitions from these offsets on."""
        self.consumer.assign([self._tp(s) for s in positions])
        for spot, offset in positions.items():
            self.consumer.seek(self._tp(spot), offset)

    def ends_heard(self, spot: Spot) -> tuple[int, float]:
        """The offset after the last record as the broker last said, and when that was (s since 1970); 0, 0: never."""
        part = self._tp(spot)
        return self.consumer.highwater(part) or 0, (self.consumer.last_poll_timestamp(part) or 0) / 1000

    async def poll(self, timeout_ms: int = 500, limit: int | None = None) -> list[Any]:
        """Messages of the next fetch, in order within each partition.

        OffsetOutOfRangeError if the position is off the log.
        """
        got = await self.consumer.getmany(timeout_ms=timeout_ms, max_records=limit)
        return [m for messages in got.values() for m in messages]

    async def parts(self, timeout_ms: int = 500) -> list[tuple[Spot, list[Any]]]:
        """As `poll`, by partition. What comes next is asked for before this returns."""
        got = await self.consumer.getmany(timeout_ms=timeout_ms)
        await asyncio.sleep(0.001)  # the client's own task runs
        return [(self._spot(tp), messages) for tp, messages in got.items()]

    async def records(self, timeout_ms: int = 500, limit: int | None = None) -> list[Record | Broken]:
        """As `poll`, decoded; waits for schemas that are not known yet."""
        return [await self.decoded(m) for m in await self.poll(timeout_ms, limit)]

    async def decoded(self, message: Any) -> Record | Broken:
        """One message as a record; learns the schema from the log, and waits for it if it is not there."""
        return await patiently(self._cluster, self._catalogue, message, to_record)

    async def item(self, message: Any) -> Item:
        """As `decoded`; dead letters come as such."""
        return await patiently(self._cluster, self._catalogue, message, to_item)

    def pause(self, spot: Spot) -> None:
        """Read no more of this partition, until the next `seek`."""
        self.consumer.pause(self._tp(spot))

    def rest(self) -> None:
        """Read nothing until the next `seek`. Else the client looks five times a second what it might ask for."""
        if self.consumer.assignment():
            self.consumer.unsubscribe()

    async def position(self, spot: Spot) -> int:
        """The offset that is read next."""
        return int(await self.consumer.position(self._tp(spot)))

    async def epoch(self, spots: Iterable[Spot]) -> dict[Spot, str]:
        """The id of each partition's TopicOpened; empty where the log's beginning is no longer kept.

        Moves the position.
        """
        spots = list(spots)
        starts = await self.starts(spots)
        found = dict.fromkeys(spots, "")
        wanted = {s for s in spots if starts[s] == 0}
        await self.seek(dict.fromkeys(wanted, 0))
        while wanted:
            for message in await self.poll(500, limit=1):
                spot = self._spot(TopicPartition(message.topic, message.partition))
                if spot in wanted:
                    wanted.discard(spot)
                    self.pause(spot)
                    record = await self.decoded(message)
                    if isinstance(record, Record) and isinstance(record.event, TopicOpened):
                        found[spot] = record.event.event_id
        return found

    async def range(self, spot: Spot, start: int, end: int) -> AsyncIterator[Record | Broken]:
        """Records of one partition with start <= offset < end; compacted-away ones are missing."""
        await self.seek({spot: start})
        while start < end:
            messages = await self.poll(500)
            for message in messages:
                if message.offset >= end:
                    return
                yield await self.decoded(message)
            start = await self.position(spot)

    def _tp(self, spot: Spot) -> TopicPartition:
        return TopicPartition(self._catalogue.physical(spot.topic), spot.partition)

    def _spot(self, tp: TopicPartition) -> Spot:
        return Spot(self._catalogue.logical(tp.topic), tp.partition)


@asynccontextmanager
async def reading(cluster: Cluster, catalogue: Catalogue, wait_ms: int = 500) -> AsyncIterator[LogReader]:
    """A reader for a while."""
    reader = LogReader(cluster, catalogue, wait_ms=wait_ms)
    try:
        await reader.start()
        yield reader
    finally:
        await reader.stop()


waiting_for_schema: set[str] = set()


async def patiently(cluster: Cluster, catalogue: Catalogue, message: Any, convert: Callable[[Catalogue, Any], T]) -> T:
    """`convert` a message; on an unknown schema read `schemas`, and wait until it is there (a newer writer is at work).

    What is waited for stands in `waiting_for_schema`: the process is not ready meanwhile.
    """
    missing: set[str] = set()
    try:
        while True:
            try:
                return convert(catalogue, message)
            except UnknownSchema as unknown:
                name = unknown.fingerprint.hex()
                if name in missing:
                    await asyncio.sleep(1)
                missing.add(name)
                waiting_for_schema.add(name)
                where = (name, message.topic, message.offset)
                log.warning("waiting for a schema fingerprint=%s topic=%s offset=%d", *where)
                await learn_schemas(cluster, catalogue)
    finally:
        waiting_for_schema.difference_update(missing)


async def learn_schemas(cluster: Cluster, catalogue: Catalogue) -> None:
    """Take in every schema on the log."""
    async with reading(cluster, catalogue) as reader:
        spot = Spot(SCHEMAS, 0)
        start, end = (await reader.starts([spot]))[spot], (await reader.ends([spot]))[spot]
        await reader.seek({spot: start})
        while start < end:
            for message in await reader.poll(500):
                record = to_record(catalogue, message)
                if isinstance(record, Record) and isinstance(record.event, SchemaPublished):
                    _learn(record)
            start = await reader.position(spot)


def _learn(record: Record) -> None:
    try:
        learn(record.event.schema if isinstance(record.event, SchemaPublished) else "")
    except Exception as error:  # noqa: BLE001 - fastavro raises what it likes about a schema that is none
        log.warning("a published schema can't be parsed key=%s error=%s", record.key, type(error).__name__)
