"""Reading history with synchronous clients, for the command line: several topics merged by the log's time.

Records of one partition keep their order; between partitions the smaller timestamp comes first.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import closing

from kafka import KafkaConsumer, TopicPartition

from topics.catalogue import Catalogue
from topics.cluster import REQUEST_BYTES, Cluster
from topics.events import Record
from topics.fetch import Broken, to_record

BUFFERED = 500


def history(
    cluster: Cluster,
    catalogue: Catalogue,
    topics: Iterable[str],
    *,
    since: int | None = None,
    until: int | None = None,
    follow: bool = False,
) -> Iterator[Record | Broken]:
    """Everything on `topics` logged in since <= time < until (ms); with `follow` it goes on with what comes.

    KafkaError, UnknownSchema.
    """
    known = catalogue.topics()
    spots = [TopicPartition(catalogue.physical(t), p) for t in topics for p in range(known[t].partitions)]
    consumer = KafkaConsumer(
        **cluster.for_kafka_python(),
        enable_auto_commit=False,
        max_partition_fetch_bytes=REQUEST_BYTES,
        auto_offset_reset="earliest",
    )
    with closing(consumer):
        consumer.assign(spots)
        _seek(consumer, spots, since)
        ends = consumer.end_offsets(spots)
        waiting: dict[TopicPartition, deque[Record | Broken]] = {s: deque() for s in spots}
        unread = {s for s in spots if consumer.position(s) < ends[s]}
        while unread or any(waiting.values()) or follow:
            _fill(consumer, catalogue, waiting, unread, ends)
            while ready := [q for q in waiting.values() if q]:
                if any(not waiting[s] for s in unread):
                    break
                record = min(ready, key=lambda q: q[0].timestamp).popleft()
                if until is not None and record.timestamp >= until:
                    continue
                yield record


def _seek(consumer: KafkaConsumer, spots: list[TopicPartition], since: int | None) -> None:
    if since is None:
        consumer.seek_to_beginning(*spots)
        return
    found = consumer.offsets_for_times(dict.fromkeys(spots, since))
    for spot in spots:
        if found.get(spot):
            consumer.seek(spot, found[spot].offset)
        else:
            consumer.seek_to_end(spot)


def _fill(
    consumer: KafkaConsumer,
    catalogue: Catalogue,
    waiting: dict[TopicPartition, deque[Record | Broken]],
    unread: set[TopicPartition],
    ends: dict[TopicPartition, int],
) -> None:
    """Fetch more where nothing is buffered; rest where enough is."""
    full = {s for s, q in waiting.items() if len(q) >= BUFFERED}
    consumer.pause(*full)
    for spot in consumer.paused() - full:
        # A pause drops what was fetched and not yet handed out, and the client would go on after it.
        consumer.seek(spot, consumer.position(spot))
        consumer.resume(spot)
    for spot, messages in consumer.poll(timeout_ms=500).items():
        waiting[spot].extend(to_record(catalogue, m) for m in messages)
    unread.difference_update({s for s in unread if consumer.position(s) >= ends[s]})
