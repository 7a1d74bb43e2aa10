"""A log of one run: an embedded broker in an empty directory, topics under a prefix, records as fast as they go."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka import AIOKafkaProducer

from broker.embedded import EmbeddedBroker
from topics.catalogue import Catalogue
from topics.cluster import REQUEST_BYTES, Cluster
from topics.codec import encode
from topics.events import Event, Lane, NoticeRaised
from topics.provision import apply


@dataclass(frozen=True, slots=True)
class Log:
    """Where the broker is, what stands on it, and a folder that goes with the run."""

    cluster: Cluster
    catalogue: Catalogue
    folder: Path

    def write(self, topic: str, events: Iterable[tuple[str, Event]]) -> int:
        """Put (key, event) pairs on a topic, acknowledged; how many."""
        return asyncio.run(self._write(self.catalogue.physical(topic), events))

    async def _write(self, topic: str, events: Iterable[tuple[str, Event]]) -> int:
        producer = AIOKafkaProducer(
            **self.cluster.for_aiokafka(), acks="all", max_batch_size=256 * 1024, max_request_size=REQUEST_BYTES
        )
        await producer.start()
        sent = [await producer.send(topic, encode(event), key.encode()) for key, event in events]
        await asyncio.gather(*sent)
        await producer.stop()
        return len(sent)


@contextmanager
def log(partitions: int, types: tuple[str, ...] = ("vm",)) -> Iterator[Log]:
    """A broker with all topics made; gone with its folder at the end."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as name:
        folder = Path(name)
        with EmbeddedBroker(folder / "kafka") as broker:
            made = Log(Cluster(broker.bootstrap), Catalogue(types, "bench-", partitions), folder)
            apply(made.cluster, made.catalogue)
            yield made


@contextmanager
def log_at(bootstrap: str, prefix: str, partitions: int) -> Iterator[Log]:
    """The log of another process, with a folder of one's own."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        yield Log(Cluster(bootstrap), Catalogue(("vm",), prefix, partitions), Path(folder))


def raised(number: int, users: int, after_ms: int | None) -> tuple[str, Event]:
    """The `number`-th notice of a run, to one of `users`; forwarded by mail `after_ms` after it, or not at all."""
    user = f"user-{number % users}"
    lanes = (Lane("email", "email", "address", f"{user}@example.test", after_ms),) if after_ms is not None else ()
    event = NoticeRaised(
        event_id=f"{number:032x}",
        producer="bench",
        occurred_at=number,
        caused_by=(),
        notice_id=f"notice-{number:012d}",
        user=user,
        inbox=True,
        kind="event",
        alert="bench",
        config_id="config",
        key=None,
        entity_type="host",
        entity_id="host-1",
        severity="warning",
        lanes=lanes,
        forward="",
        body=b'{"title":"The disk of host-1 is full","text":"%s"}' % (b"x" * 200),
    )
    return user, event
