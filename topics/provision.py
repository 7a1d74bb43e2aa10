"""Makes the topics that the catalogue declares, and nothing else does: idempotent, and it reports drift.

The first record of each partition is TopicOpened with a fresh id; all of them together are the log's epoch, by which
every reader knows whether its position belongs to this log. The number of partitions never changes within an epoch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, NotControllerError, for_code

from topics.catalogue import SCHEMAS, TOPIC_OPENED_KEY, Catalogue, Topic
from topics.cluster import REQUEST_BYTES, Cluster
from topics.codec import Undecodable, decode, encode
from topics.events import Event, SchemaPublished, TopicOpened
from topics.ids import derived_id, new_id
from topics.schemas import Schema, newest_schemas

TOPIC_ALREADY_EXISTS = 36
KNOWN_S = 30.0
AGAIN_S = 0.1


class ProvisionError(RuntimeError):
    """The cluster can't be brought to the catalogue's shape; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What `apply` found or did with one topic.

    Made, settings changed (`drift`: name to (is, shall)), or as declared.
    """

    topic: Topic
    made: bool
    drift: dict[str, tuple[str, str]]


def apply(cluster: Cluster, catalogue: Catalogue, *, replication: int = 1, change: bool = True) -> list[Finding]:
    """Make what is missing, set what differs (with `change`), open partitions, publish the schemas.

    ProvisionError, KafkaError.
    """
    with closing(admin_of(cluster)) as admin:
        wanted = catalogue.topics()
        present = set(admin.list_topics())
        missing = [t for t in wanted.values() if catalogue.physical(t.name) not in present]
        if missing and change:
            _create(admin, catalogue, missing, replication)
        spoken = admin.config["api_version"]
        _check_partitions(admin, catalogue, [t for t in wanted.values() if change or t not in missing])
        findings = [
            Finding(t, t in missing, {} if t in missing else _drift(admin, catalogue, t, change=change))
            for t in wanted.values()
        ]
    if change:
        _open(_client(cluster, spoken), catalogue)
    return findings


def admin_of(cluster: Cluster) -> Any:
    """A client for topics and groups; waits while a broker that has just started names no controller. KafkaError."""
    deadline = time.monotonic() + KNOWN_S
    while True:
        try:
            return KafkaAdminClient(**cluster.for_kafka_python())
        except AssertionError as unknown:  # the library's word for that
            if time.monotonic() > deadline:
                raise NotControllerError(str(unknown)) from unknown
            time.sleep(AGAIN_S)


def schema_record(schema: Schema, producer: str) -> tuple[str, SchemaPublished]:
    """Key and event by which a producer makes the log explain itself."""
    print_ = schema.fingerprint.hex()
    return print_, SchemaPublished(
        event_id=derived_id("schema", print_),
        producer=producer,
        occurred_at=time.time_ns() // 1000,
        fingerprint=print_,
        schema=schema.text,
    )


def _create(admin: Any, catalogue: Catalogue, topics: list[Topic], replication: int) -> None:
    new = [NewTopic(catalogue.physical(t.name), t.partitions, replication, topic_configs=t.config) for t in topics]
    try:
        answer = admin.create_topics(new)
    except KafkaError as error:
        if getattr(error, "errno", None) != TOPIC_ALREADY_EXISTS:  # another `apply` at the same time
            raise
        return
    for name, code, message in ((e[0], e[1], e[2] if len(e) > 2 else "") for e in answer.topic_errors):
        if code not in (0, TOPIC_ALREADY_EXISTS):
            text = f"topic {name} can't be made: {for_code(code).__name__} {message or ''}".rstrip()
            raise ProvisionError(text)


def _check_partitions(admin: Any, catalogue: Catalogue, topics: list[Topic]) -> None:
    found = {
        d["topic"]: len(d["partitions"]) for d in admin.describe_topics([catalogue.physical(t.name) for t in topics])
    }
    for topic in topics:
        is_ = found.get(catalogue.physical(topic.name), 0)
        if is_ and is_ != topic.partitions:
            text = (
                f"topic {topic.name} has {is_} partitions and the settings say {topic.partitions}: "
                f"the number is fixed for the life of a log; set TIDINGS_PARTITIONS back to {is_}"
            )
            raise ProvisionError(text)


def _drift(admin: Any, catalogue: Catalogue, topic: Topic, *, change: bool) -> dict[str, tuple[str, str]]:
    """Describe, compare, and alter with all settings merged.

    kafka-python-ng's alter replaces whatever it isn't told.
    """
    name = catalogue.physical(topic.name)
    is_: dict[str, str] = {}
    own: dict[str, str] = {}
    for answer in admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)]):
        for resource in answer.resources:
            for entry in resource[4]:
                is_[entry[0]] = entry[1]
                if entry[3] == 1:  # set on the topic itself, not inherited
                    own[entry[0]] = entry[1]
    drift = {k: (is_.get(k, ""), v) for k, v in topic.config.items() if is_.get(k) != v}
    if drift and change:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, configs=own | topic.config)])
    return drift


def _client(cluster: Cluster, spoken: Any) -> dict[str, Any]:
    """Arguments of a client that knows which version is `spoken`, and soon asks again for leaders of topics that were
    made just now: with the library's own pauses most of a start would be waiting.
    """
    return cluster.for_kafka_python() | {"api_version": spoken, "retry_backoff_ms": 20}


def _open(client: dict[str, Any], catalogue: Catalogue) -> None:
    """TopicOpened into every partition that has never had a record, then the schemas."""
    producer = KafkaProducer(
        **client,
        acks="all",
        retries=100,
        max_in_flight_requests_per_connection=1,
        max_request_size=REQUEST_BYTES,
    )
    with closing(producer):
        sent = [_send(producer, catalogue, t.name, TOPIC_OPENED_KEY, e, p) for t, p, e in _unopened(client, catalogue)]
        for schema in newest_schemas().values():
            key, event = schema_record(schema, "provision")
            sent.append(_send(producer, catalogue, SCHEMAS, key, event))
        for future in sent:
            future.get(timeout=30)


def _send(producer: Any, catalogue: Catalogue, topic: str, key: str, event: Event, partition: int | None = None) -> Any:
    return producer.send(catalogue.physical(topic), key=key.encode(), value=encode(event), partition=partition)


def _unopened(client: dict[str, Any], catalogue: Catalogue) -> Iterator[tuple[Topic, int, TopicOpened]]:
    spots = {
        TopicPartition(catalogue.physical(t.name), p): t
        for t in catalogue.topics().values()
        for p in range(t.partitions)
    }
    with closing(KafkaConsumer(**client, enable_auto_commit=False)) as consumer:
        consumer.assign(list(spots))  # one request for the metadata of all, instead of one, and a pause, for each
        ends = _asked(consumer.end_offsets, list(spots))
        starts = _asked(consumer.beginning_offsets, list(spots))
        _check_opened(consumer, [spot for spot in spots if starts[spot] == 0 and ends[spot] > 0], spots)
    for spot, topic in spots.items():
        if ends[spot] == 0:
            yield (
                topic,
                spot.partition,
                TopicOpened(
                    event_id=new_id(),
                    producer="provision",
                    occurred_at=time.time_ns() // 1000,
                    topic=topic.name,
                    partition=spot.partition,
                    partitions=topic.partitions,
                ),
            )


def _asked(offsets: Callable[[list[Any]], dict[Any, int]], spots: list[Any]) -> dict[Any, int]:
    """What the broker says of them; of topics that were made just now a busy one knows no leaders for a while."""
    deadline = time.monotonic() + KNOWN_S
    while True:
        try:
            return offsets(spots)
        except KeyError as unknown:  # the library's word for that, after it has asked again
            if time.monotonic() > deadline:
                raise ProvisionError(f"the broker knows no leader of {unknown} after {KNOWN_S:g} s") from unknown


def _check_opened(consumer: Any, spots: list[Any], topics: dict[Any, Topic]) -> None:
    """A topic that somebody else filled first can't be ours: its positions would belong to no epoch."""
    consumer.assign(spots)
    for spot in spots:
        consumer.seek(spot, 0)
    left = set(spots)
    deadline = time.monotonic() + 30
    while left and time.monotonic() < deadline:
        for spot, records in consumer.poll(timeout_ms=500).items():
            consumer.pause(spot)
            left.discard(spot)
            try:
                first: Event | None = decode(records[0].value or b"")
            except (Undecodable, LookupError):
                first = None
            if records[0].offset == 0 and not isinstance(first, TopicOpened):
                text = (
                    f"topic {topics[spot].name} partition {spot.partition} was not opened by `tidings topics apply`: "
                    "use another prefix, or delete the topic"
                )
                raise ProvisionError(text)
    if left:
        text = f"no answer about the first record of {sorted(s.topic for s in left)} within 30 s"
        raise ProvisionError(text)
