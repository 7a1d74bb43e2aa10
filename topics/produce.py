"""The asyncio producer: idempotent, acknowledged by all replicas, and replaced after any error.

aiokafka's idempotent producer fails every later send once its sequence is broken, so a failed one is never used again;
whoever sends through here repeats, and readers drop repeats by id.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from topics.catalogue import SCHEMAS, Catalogue
from topics.cluster import REQUEST_BYTES, Cluster, connect
from topics.codec import encode
from topics.events import Event, SchemaPublished
from topics.ids import derived_id
from topics.partition import partition_of
from topics.schemas import newest_schemas

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a record stands, as the broker said; `timestamp` is the log's time (ms)."""

    topic: str
    partition: int
    offset: int
    timestamp: int


class NotOnTheLog(RuntimeError):
    """The broker did not acknowledge in time, or refused; the record may still arrive. `final`: it never will."""

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Producer:
    """Sends events; one per process and role. `name` is what stands in the events' `producer`."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue, role: str) -> None:
        self.name = f"{role}@{socket.gethostname()}:{os.getpid()}"
        self._cluster, self._catalogue = cluster, catalogue
        self._topics = catalogue.topics()
        self._kafka: AIOKafkaProducer | None = None
        self._lock = asyncio.Lock()

    async def start(self) -> Placed:
        """Connect and publish the schemas that may be written; where the last of them stands, and so what time it is on
        the log. KafkaError when the broker is away.
        """
        await self._current()
        sent = [
            await self.enqueue(
                SCHEMAS,
                s.fingerprint.hex(),
                SchemaPublished(
                    event_id=derived_id("schema", s.fingerprint.hex()),
                    producer=self.name,
                    occurred_at=now_us(),
                    fingerprint=s.fingerprint.hex(),
                    schema=s.text,
                ),
            )
            for s in newest_schemas().values()
        ]
        return (await asyncio.gather(*sent))[-1]

    async def stop(self) -> None:
        """Flush and close; bounded, because aiokafka's stop can hang on a full disk at the broker."""
        kafka, self._kafka = self._kafka, None
        if kafka is not None:
            await _close(kafka, 10)

    async def send(self, topic: str, key: str, event: Event, *, timeout: float = 30) -> Placed:
        """One event, acknowledged. NotOnTheLog after `timeout` seconds or a refusal."""
        future = await self.enqueue(topic, key, event)
        try:
            return await asyncio.wait_for(asyncio.shield(future), timeout)
        except TimeoutError as error:
            msg = f"{topic} did not acknowledge within {timeout:g} s"
            raise NotOnTheLog(msg) from error

    async def enqueue(self, topic: str, key: str, event: Event) -> asyncio.Future[Placed]:
        """Put into the producer's buffer; order of one caller is kept. The future answers or raises NotOnTheLog."""
        return await self.enqueue_bytes(topic, key, encode(event))

    async def enqueue_bytes(
        self, topic: str, key: str | None, value: bytes, headers: list[tuple[str, bytes]] | None = None
    ) -> asyncio.Future[Placed]:
        """As `enqueue`, for bytes that are encoded already (or never could be: dead letters)."""
        done: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_looked_at)
        try:
            kafka = await self._current()
        except KafkaError as error:
            done.set_exception(_failure(topic, error))
            return done
        try:
            sent = await kafka.send(
                self._catalogue.physical(topic), value, key.encode() if key is not None else None, headers=headers
            )
        except (KafkaError, RuntimeError) as error:
            self._drop(kafka, error)
            done.set_exception(_failure(topic, error))
            return done

        sent.add_done_callback(self._finishing(kafka, topic, done))
        return done

    async def enqueue_group(
        self, topic: str, partition: int, records: Sequence[tuple[bytes, bytes]]
    ) -> tuple[int, asyncio.Future[Placed]]:
        """Put (key, value) pairs into one batch of a partition, which costs a fraction of one by one; waits until the
        partition's batch before it is on its way. How many were taken (at least one), and the place of the first: the
        others follow it without a gap.
        """
        done: asyncio.Future[Placed] = asyncio.get_running_loop().create_future()
        done.add_done_callback(_looked_at)
        try:
            kafka = await self._current()
        except KafkaError as error:
            done.set_exception(_failure(topic, error))
            return len(records), done
        batch = kafka.create_batch()
        taken = 0
        for key, value in records:
            if batch.append(timestamp=None, key=key, value=value) is None:
                break
            taken += 1
        batch.close()
        try:
            sent = await kafka.send_batch(batch, self._catalogue.physical(topic), partition=partition)
        except (KafkaError, RuntimeError) as error:
            self._drop(kafka, error)
            done.set_exception(_failure(topic, error))
            return taken, done
        sent.add_done_callback(self._finishing(kafka, topic, done))
        return taken, done

    async def enqueue_all(
        self, topic: str, records: Sequence[tuple[str, bytes]]
    ) -> list[tuple[list[int], asyncio.Future[Placed]]]:
        """Put (key, value) pairs on a topic in as few batches as they take, those of one key in their order.

        Of each batch the numbers of its records, and the place of the first.
        """
        groups: defaultdict[int, list[int]] = defaultdict(list)
        for number, (key, _) in enumerate(records):
            groups[partition_of(key, self._topics[topic].partitions)].append(number)
        sent = []
        for partition, numbers in groups.items():
            left = numbers
            while left:
                group = [(records[n][0].encode(), records[n][1]) for n in left]
                taken, future = await self.enqueue_group(topic, partition, group)
                sent.append((left[:taken], future))
                left = left[taken:]
        return sent

    def _finishing(
        self, kafka: AIOKafkaProducer, topic: str, done: asyncio.Future[Placed]
    ) -> Callable[[asyncio.Future[Any]], None]:
        def finished(future: asyncio.Future[Any]) -> None:
            if done.done():
                return
            error = asyncio.CancelledError() if future.cancelled() else future.exception()
            if error is not None:
                self._drop(kafka, error)
                done.set_exception(_failure(topic, error))
            else:
                meta = future.result()
                done.set_result(Placed(topic, meta.partition, meta.offset, meta.timestamp))

        return finished

    async def _current(self) -> AIOKafkaProducer:
        async with self._lock:
            if self._kafka is None:
                kafka = AIOKafkaProducer(
                    **self._cluster.for_aiokafka(),
                    client_id=self.name,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    request_timeout_ms=120_000,
                    max_request_size=REQUEST_BYTES,
                    max_batch_size=256 * 1024,
                )
                try:
                    await connect(kafka)
                except BaseException:
                    await _close(kafka, 5)
                    raise
                self._kafka = kafka
            return self._kafka

    def _drop(self, kafka: AIOKafkaProducer, error: BaseException) -> None:
        if self._kafka is kafka:
            log.warning("producer replaced after an error error=%s", type(error).__name__)
            self._kafka = None
            task = asyncio.get_running_loop().create_task(_close(kafka, 10))
            _closing.add(task)
            task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


def now_us() -> int:
    """The producer's own clock, for `occurred_at` only."""
    return time.time_ns() // 1000


async def _close(kafka: AIOKafkaProducer, seconds: float) -> None:
    try:
        await asyncio.wait_for(kafka.stop(), seconds)
    except (TimeoutError, KafkaError) as error:
        log.warning("a producer did not close in time error=%s", type(error).__name__)


def _failure(topic: str, error: BaseException) -> NotOnTheLog:
    final = type(error).__name__ in (
        "MessageSizeTooLargeError",
        "InvalidTopicError",
        "RecordTooLargeError",
        "RecordListTooLargeError",
    )
    return NotOnTheLog(f"{topic}: {type(error).__name__}", final=final)


def _looked_at(future: asyncio.Future[Placed]) -> None:
    """Whoever sends without waiting must not leave a warning behind: the relay repeats what isn't read back."""
    if not future.cancelled():
        future.exception()
