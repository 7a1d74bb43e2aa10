"""What the wrapper writes to the log: one synchronous producer for the process, acknowledged by all replicas, one
request in flight.

kafka-python-ng tells of an expired batch only in the future, and the record may still arrive: whoever sends through
here looks at every future and repeats the same bytes; readers drop the second copy.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from topics.catalogue import ALERT_REPORTS, DEAD_LETTERS, NOTICE_REQUESTS, SCHEMAS, Catalogue
from topics.cluster import REQUEST_BYTES, Cluster
from topics.codec import encode
from topics.events import AlertReported, Event, Lane, NoticeRequested, NoticeResolved
from topics.ids import new_id
from topics.json_text import dumps
from topics.provision import schema_record
from topics.schemas import newest_schemas

SUBJECT = "tidings-wrapper"  # who sends the notices to the operators
OPERATORS_MS = 300_000  # unread for so long, it goes out as e-mail

Headers = Sequence[tuple[str, bytes]]
OnError = Callable[[BaseException], None]

log = logging.getLogger(__name__)


class Outbound:
    """Threads may share it. `name` stands in the events as `producer`. KafkaError when no broker answers."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue) -> None:
        self.name = f"wrapper@{socket.gethostname()}:{os.getpid()}"
        self._catalogue = catalogue
        self._kafka = KafkaProducer(
            **cluster.for_kafka_python(),
            bootstrap_topics_filter={catalogue.physical(NOTICE_REQUESTS)},  # it would ask for all topics there are
            acks="all",
            retries=20,
            max_in_flight_requests_per_connection=1,
            linger_ms=0,
            max_request_size=REQUEST_BYTES,
            max_block_ms=5_000,
        )

    def publish_schemas(self) -> None:
        """Before the first record, so that the log explains itself. KafkaError."""
        records = [schema_record(s, self.name) for s in newest_schemas().values()]
        sent = [
            self._kafka.send(self._catalogue.physical(SCHEMAS), key=key.encode(), value=encode(event))
            for key, event in records
        ]
        for future in sent:
            future.get(timeout=30)

    def place(self, topic: str, key: str, data: bytes, *, give_up: Callable[[], bool]) -> bool:
        """Send and wait until it is acknowledged, the same bytes again after each failure; false once `give_up` says
        so.
        """
        while True:
            try:
                self._send(topic, key.encode(), data).get(timeout=40)
            except KafkaError as error:
                log.warning(
                    "not acknowledged, sending it again topic=%s key=%s error=%s", topic, key, type(error).__name__
                )
                if give_up():
                    return False
            else:
                return True

    def commit(self, alert: str, data: bytes, failed: Callable[[], None]) -> None:
        """A record of the chain; `failed` is called, from any thread, when it was not acknowledged."""

        def on_error(error: BaseException) -> None:
            log.warning("a commit was not acknowledged alert=%s error=%s", alert, type(error).__name__)
            failed()

        self._try(NOTICE_REQUESTS, alert.encode(), data, on_error)

    def put(self, topic: str, key: str, event: Event) -> None:
        """An event whose loss the rules can bear: a report, a checkpoint."""
        self._put(topic, key.encode(), encode(event))

    def report(self, alert: str, shard: int, kind: str, *, config_id: str | None = None, **told: str) -> None:
        """Tell people how an alert is."""
        event = AlertReported(
            event_id=new_id(),
            producer=self.name,
            occurred_at=time.time_ns() // 1000,
            alert=alert,
            shard=shard,
            kind=kind,
            config_id=config_id,
            body=dumps({k: v.encode("utf-8", "replace").decode() for k, v in told.items()}).encode(),
        )
        self.put(ALERT_REPORTS, f"{alert}/{shard}", event)

    def operators(self, users: tuple[str, ...], alert: str, trouble: str | None) -> None:
        """A notice to those who run this: the alert gets nowhere; null: it does again."""
        key = f"alert {alert} gets nowhere"
        about: dict[str, Any] = {"event_id": new_id(), "producer": self.name, "occurred_at": time.time_ns() // 1000}
        if trouble is None:
            event: Event = NoticeResolved(**about, subject=SUBJECT, key=key)
        else:
            text = "It is tried again every ten minutes. " + trouble
            event = NoticeRequested(
                **about,
                subject=SUBJECT,
                key=key,
                request_key=about["event_id"],
                users=users,
                lanes=tuple(Lane("email", "email", "recipient", user, OPERATORS_MS) for user in users),
                forward="",
                severity="error",
                entity_type=None,
                entity_id=None,
                body=dumps({"title": f"Alert program {alert} fails"[:300], "text": text[:16_000]}).encode(),
            )
        self._put(NOTICE_REQUESTS, f"{SUBJECT}/{key}".encode(), encode(event))

    def dead_letter(self, key: bytes | None, data: bytes, **headers: str) -> None:
        """Bytes that could not be taken, and why."""
        self._put(DEAD_LETTERS, key, data, [(k, v.encode("utf-8", "replace")) for k, v in headers.items()])

    def close(self) -> None:
        """Send what waits, for at most 10 s."""
        self._kafka.close(timeout=10)

    def _put(self, topic: str, key: bytes | None, data: bytes, headers: Headers = ()) -> None:
        def on_error(error: BaseException) -> None:
            log.warning("lost a record that is not part of a chain topic=%s error=%s", topic, type(error).__name__)

        self._try(topic, key, data, on_error, headers)

    def _try(self, topic: str, key: bytes | None, data: bytes, on_error: OnError, headers: Headers = ()) -> None:
        try:
            self._send(topic, key, data, headers).add_errback(on_error)
        except KafkaError as error:
            on_error(error)

    def _send(self, topic: str, key: bytes | None, data: bytes, headers: Headers = ()) -> Any:
        return self._kafka.send(self._catalogue.physical(topic), key=key, value=data, headers=list(headers))
