"""Reading the log with kafka-python-ng: one consumer that follows with long polls, and one that opens runs and then
asks for ends.

Two, because a broker answers one request at a time on a connection: a question would wait behind the long poll. Every
poll takes all that was fetched, since a partition with a rest would be left out of the next long poll and its news
would wait for the end of it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from threading import Event as Flag
from typing import Any

from aiokafka.record.memory_records import MemoryRecords
from kafka import KafkaClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaTimeoutError, LeaderNotAvailableError

from topics.catalogue import NOTICE_REQUESTS, SCHEMAS, Catalogue
from topics.cluster import Cluster
from topics.codec import UnknownSchema, learn
from topics.events import Record, SchemaPublished
from topics.fetch import Broken, Spot, record_at

FETCH_WAIT_MS = 250
OPENING_WAIT_MS = 10  # while a run is opened, what is read changes often, and each change waits for the last poll
RETRY_MS = 20  # a newly followed topic asks for its leader this often
FETCH_BYTES = 1024 * 1024  # decoded they take ten times as much; a larger record comes alone
ALL = 1_000_000
ANSWER_MS = 20_000
LOOK_MS = 100

log = logging.getLogger(__name__)


def quiet_farewells() -> None:
    """Closing a consumer cancels its long poll, which the library logs as an error each time."""
    logging.getLogger("kafka.consumer.fetcher").addFilter(_no_farewell)


def _no_farewell(record: logging.LogRecord) -> bool:
    return "Cancelled" not in record.getMessage()


class Reader:
    """For one thread. Of `notice-requests` it gives only what is keyed by `alert`. `stop` ends all waiting: Stopped.
    KafkaError when the broker is away.
    """

    def __init__(self, cluster: Cluster, catalogue: Catalogue, alert: str, stop: Flag) -> None:
        self._cluster, self._catalogue, self._alert, self._stop = cluster, catalogue, alert, stop
        self._chains = catalogue.physical(NOTICE_REQUESTS)
        self._live = self._connect(FETCH_WAIT_MS)
        self._asker = self._connect(OPENING_WAIT_MS)
        self._consumer = self._asker
        self._spots: dict[TopicPartition, Spot] = {}

    def close(self) -> None:
        """Leave nothing connected."""
        self._live.close(autocommit=False)
        self._asker.close(autocommit=False)

    def spots(self, topics: Iterable[str]) -> list[Spot]:
        """All partitions of `topics`."""
        known = self._catalogue.topics()
        return [Spot(t, p) for t in topics for p in range(known[t].partitions)]

    def ends(self, spots: Iterable[Spot]) -> dict[Spot, int]:
        """The offset after the last record of each: one round trip, about 0.7 ms."""
        return self._asked(self._asker.end_offsets, spots)

    def starts(self, spots: Iterable[Spot]) -> dict[Spot, int]:
        """The first offset that is still there."""
        return self._asked(self._asker.beginning_offsets, spots)

    def _asked(self, offsets: Callable[[list[Any]], dict[Any, int]], spots: Iterable[Spot]) -> dict[Spot, int]:
        names = {self._name(s): s for s in spots}
        try:
            return {names[name]: offset for name, offset in offsets(list(names)).items()}
        except KeyError as unknown:  # the library's word for a partition without a leader
            raise LeaderNotAvailableError(str(unknown)) from unknown

    def follow(self, positions: dict[Spot, int], *, live: bool = False) -> None:
        """Read exactly these partitions from these offsets on; `live`: for good, with long polls."""
        self._consumer = self._live if live else self._asker
        self._spots = {self._name(s): s for s in positions}
        self._consumer.assign(list(self._spots))
        self._consumer.resume(*self._spots)  # a pause outlives an assignment to the same partition
        for name, spot in self._spots.items():
            self._consumer.seek(name, positions[spot])

    def poll(self, timeout_ms: float) -> Iterator[Record | Broken]:
        """All that was fetched, in order within each partition; waits at most `timeout_ms` for the first of it."""
        for name, messages in self._consumer.poll(timeout_ms=timeout_ms, max_records=ALL).items():
            spot, ours = self._spots[name], self._alert.encode() if name.topic == self._chains else None
            for message in messages:
                if ours is None or message.key == ours:
                    yield self._decoded(spot, message)

    def position(self, spot: Spot) -> int:
        """The next offset to be fetched; what is below was handed out, or is no longer there."""
        position: int = self._consumer.position(self._name(spot))
        return position

    def pause(self, spots: Iterable[Spot]) -> None:
        """Fetch nothing from these for now."""
        followed = set(self._spots.values())
        self._consumer.pause(*(self._name(s) for s in spots if s in followed))

    def resume(self, spots: Iterable[Spot]) -> None:
        """Fetch from these again, from where we are: after a pause the client may go on behind what it had unpacked."""
        paused = self._consumer.paused()
        for name in (n for s in spots if (n := self._name(s)) in paused):
            self._consumer.seek(name, self._consumer.position(name))
            self._consumer.resume(name)

    @property
    def resting(self) -> bool:
        """Whether any partition is paused."""
        return bool(self._consumer.paused())

    def range(self, positions: dict[Spot, tuple[int, int]]) -> Iterator[Record | Broken]:
        """Records with start <= offset < end of each partition; follows them afterwards."""
        self.follow({s: start for s, (start, _) in positions.items()})
        while unread := [s for s, (_, end) in positions.items() if self.position(s) < end]:
            self.pause(set(positions) - set(unread))
            for record in self.poll(FETCH_WAIT_MS):
                if record.offset < positions[Spot(record.topic, record.partition)][1]:
                    yield record
            if self._stop.is_set():
                raise Stopped
        self.resume(positions)

    def whole(self, topic: str) -> Iterator[Record | Broken]:
        """Everything on a topic, up to its end of now."""
        spots = self.spots([topic])
        starts, ends = self.starts(spots), self.ends(spots)
        yield from self.range({s: (starts[s], ends[s]) for s in spots})

    def _decoded(self, spot: Spot, message: object) -> Record | Broken:
        """A schema that nobody here knows is waited for: it is no broken record, but a newer writer's."""
        while True:
            try:
                return record_at(spot, message)
            except UnknownSchema as unknown:
                if self._learn(unknown.fingerprint):
                    continue
                log.warning("waiting for a schema fingerprint=%s", unknown.fingerprint.hex())
                if self._stop.wait(1):
                    raise Stopped from unknown

    def _learn(self, wanted: bytes) -> bool:
        with closing(Reader(self._cluster, self._catalogue, self._alert, self._stop)) as other:
            found = False
            for record in other.whole(SCHEMAS):
                if isinstance(record, Record) and isinstance(record.event, SchemaPublished):
                    found = (learn(record.event.schema) and record.event.fingerprint == wanted.hex()) or found
        return found

    def _name(self, spot: Spot) -> TopicPartition:
        return TopicPartition(self._catalogue.physical(spot.topic), spot.partition)

    def _connect(self, wait_ms: int) -> KafkaConsumer:
        consumer = KafkaConsumer(
            **self._cluster.for_kafka_python(),
            kafka_client=asking_of(self._chains),
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=wait_ms,
            fetch_max_bytes=FETCH_BYTES,
            max_partition_fetch_bytes=FETCH_BYTES // 2,
            request_timeout_ms=ANSWER_MS,
            metadata_max_age_ms=30_000,
            retry_backoff_ms=RETRY_MS,
        )
        _unpack_quickly(consumer)
        consumer._client.poll = partial(self._answer, consumer._client.poll)  # noqa: SLF001 - it would wait for ever
        return consumer

    def _answer(self, poll: Callable[..., Any], timeout_ms: float | None = None, future: Any = None) -> Any:
        """What the library's client waits with for an answer: not for ever while no broker is there. KafkaError."""
        if future is None:
            return poll(timeout_ms)
        until = time.monotonic() + ANSWER_MS / 1000
        poll(0)
        while not future.is_done:
            if self._stop.is_set() or time.monotonic() > until:
                raise KafkaTimeoutError
            poll(LOOK_MS)
        return []


def asking_of(topic: str) -> Callable[..., KafkaClient]:
    """A client that, to find out what the broker speaks, asks it of one topic and not of all there are."""
    return partial(KafkaClient, bootstrap_topics_filter={topic})


def _unpack_quickly(consumer: KafkaConsumer) -> None:
    """What was fetched is taken apart by aiokafka, in C: in Python that takes a fifth of all that the wrapper does. Its
    records say nothing of their partition, and marks of transactions are left out.
    """
    fetcher = consumer._fetcher  # noqa: SLF001 - private, and tested with each kind of batch

    def unpacked(partition: TopicPartition, records: Any) -> Iterator[Any]:
        state = fetcher._subscriptions.assignment[partition]  # noqa: SLF001
        batches = MemoryRecords(records._buffer)  # noqa: SLF001
        while (batch := batches.next_batch()) is not None:
            state.last_offset_from_message_batch = batch.next_offset - 1
            if not batch.is_control_batch:
                yield from batch

    fetcher._unpack_message_set = unpacked  # noqa: SLF001


class Stopped(Exception):
    """The process is asked to end."""
