"""A connection to one broker on which there is nothing but Fetch: asked for all its partitions at once, answered once.

The broker remembers what was asked (KIP-227), so that a request names only what has moved. A partition's place moves on
when its records are handed over: whatever becomes of the connection, the next one goes on from there.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections import defaultdict
from typing import NamedTuple, Protocol

from aiokafka import TopicPartition
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import (
    CorruptRecordException,
    IncompatibleBrokerVersion,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.record.memory_records import MemoryRecords

from topics.cluster import REQUEST_BYTES
from topics.fetch import Spot

FETCH, VERSION = 1, 11  # brokers speak it since 2.3
WAIT_MS = 500
_HEAD = struct.Struct(">hhih7siiiibii")
_ASKED = struct.Struct(">iiqqi")
_SIZE = struct.Struct(">i")
_ANSWER = struct.Struct(">iiihii")  # with its size
_PART = struct.Struct(">ihqqqi")


class Message(NamedTuple):
    """A record as it stands in Kafka; `timestamp` in ms."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Part:
    """A partition: what is read next, and where the broker last said that it ends."""

    __slots__ = ("at", "end", "link", "spot", "tp")

    def __init__(self, spot: Spot, tp: TopicPartition, at: int) -> None:
        self.spot, self.tp, self.at, self.end = spot, tp, at, 0
        self.link: Link | None = None


class Connection(AIOKafkaConnection):  # type: ignore[misc]
    """Of which only the beginning is wanted: TLS, who we are, and what the broker speaks."""

    def hand_over(self, link: Link) -> None:
        """What comes from now on comes to `link`. IncompatibleBrokerVersion."""
        least, most = self._versions.get(FETCH, (0, 0))
        if not least <= VERSION <= most:
            self.close()
            raise IncompatibleBrokerVersion(f"the broker does not speak version {VERSION} of Fetch")
        self._read_task.cancel()
        link.begin(self, self._writer.transport)


class Listener(Protocol):
    """Who is told."""

    def answered(self, link: Link) -> None:
        """There is an answer to be read."""

    def lost(self, link: Link, reason: str) -> None:
        """The link is closed."""


class Link(asyncio.Protocol):
    """A broker with the partitions that it leads: asked once, it answers once."""

    def __init__(self, listener: Listener, node: int, parts: list[Part]) -> None:
        self._listener, self.node, self.parts = listener, node, {p.tp: p for p in parts}
        self.open = True
        self.heard: float = max(p.link.heard if p.link else 0.0 for p in parts)  # s since 1970
        self.asked = time.monotonic()
        self.answer = b""
        self._buffer = bytearray()
        self._session = self._epoch = self._number = 0
        self._moved: list[Part] = []  # since it was asked

    def begin(self, connection: Connection, transport: asyncio.Transport) -> None:
        """On this connection."""
        self._connection, self._transport = connection, transport
        transport.set_protocol(self)

    def ask(self) -> None:
        """For what comes after what was read. A session's first request, and each where the broker keeps none, names
        all.
        """
        by_topic: dict[str, list[Part]] = defaultdict(list)
        for part in self._moved if self._epoch else self.parts.values():
            by_topic[part.tp.topic].append(part)
        self._number = self._number + 1 & 0x7FFFFFFF
        what = (FETCH, VERSION, self._number, 7, b"tidings", -1, WAIT_MS, 1, REQUEST_BYTES, 0)
        out = [_HEAD.pack(*what, self._session, self._epoch), _SIZE.pack(len(by_topic))]
        for topic, parts in by_topic.items():
            name = topic.encode()
            out.append(struct.pack(">h", len(name)) + name + _SIZE.pack(len(parts)))
            out += [_ASKED.pack(p.tp.partition, -1, p.at, -1, REQUEST_BYTES) for p in parts]
        out.append(bytes(6))  # nothing forgotten, no rack
        request = b"".join(out)
        self.asked, self.answer = time.monotonic(), b""
        self._transport.write(_SIZE.pack(len(request)) + request)

    def data_received(self, data: bytes) -> None:
        """Part of an answer, mostly all of it."""
        if self._buffer or len(data) < 4 or len(data) < 4 + _SIZE.unpack_from(data)[0]:
            self._buffer += data
            if len(self._buffer) < 4 or len(self._buffer) < 4 + _SIZE.unpack_from(self._buffer)[0]:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self.answer, self.heard = data, time.time()
        self._listener.answered(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The broker is gone, or we are."""
        if self.open:
            self.close(type(exc).__name__ if exc else "closed")

    def close(self, reason: str) -> None:
        """Ask no more here; the follower asks whoever leads these partitions now."""
        if self.open:
            self.open = False
            self._transport.abort()
            self._connection.close()
            self._listener.lost(self, reason)

    def read(self) -> list[tuple[Spot, list[Message], int]]:
        """The answer, by partition, with the offset that is read next: it moves on also where there was nothing but a
        transaction's own records. KafkaError for what asking again does not mend.
        """
        data, found, self._moved = self.answer, [], []
        _, number, _, error, session, topics = _ANSWER.unpack_from(data)
        if error or number != self._number:
            self.close(for_code(error).__name__)  # the broker has forgotten the session, say
            return []
        self._session = session
        self._epoch = self._epoch % 0x7FFFFFFF + 1 if session else 0
        at = _ANSWER.size
        failed = 0
        for _ in range(topics):
            begin = at + 2
            at = begin + int.from_bytes(data[at:begin], "big")
            topic = data[begin:at].decode()
            (count,) = _SIZE.unpack_from(data, at)
            at += 4
            for _ in range(count):
                partition, error, end, _, _, aborted = _PART.unpack_from(data, at)
                at += _PART.size + 16 * max(0, aborted) + 8  # and the preferred replica
                size = max(0, _SIZE.unpack_from(data, at - 4)[0])
                part, records = self.parts[TopicPartition(topic, partition)], data[at : at + size]
                at += size
                if error:
                    failed = _must_be_mended(part, error)
                    continue
                part.end = end
                if size:
                    self._moved.append(part)
                    found.append((part.spot, _messages(part, records), part.at))
        if failed:
            self.close(for_code(failed).__name__)
        return found


def _must_be_mended(part: Part, error: int) -> int:
    kind = for_code(error)
    if kind is OffsetOutOfRangeError:
        raise OffsetOutOfRangeError({part.tp: part.at})
    if kind is TopicAuthorizationFailedError:
        raise TopicAuthorizationFailedError(part.tp.topic)
    return error


def _messages(part: Part, data: bytes) -> list[Message]:
    """From where the partition was read to. Transactions' own records are passed over; nothing else is, as by all who
    follow the log: what is written under a transaction that was given up is recognised as such by nobody.
    """
    found = []
    topic, partition = part.tp
    records = MemoryRecords(data)
    while records.has_next():
        batch = records.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"Invalid CRC - {part.tp}")
        if not batch.is_control_batch:
            at = part.at
            found += [Message(topic, partition, r.offset, r.timestamp, r.key, r.value) for r in batch if r.offset >= at]
        part.at = max(part.at, batch.next_offset)
    return found
