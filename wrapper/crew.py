"""One alert in this process: which of its shards fall to it, and a NotifyWatcher for each of those.

Which they are is a consumer group's word: shard i belongs to whoever has partition i of `notice-requests`. It is a hint
and no more: two that both believe to have a shard are parted by AlertStarted on the log. What a killed process had goes
to another after SESSION_MS; one that is started again on its host, where nobody else is left, need not wait for that.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from typing import Any

import psutil
from kafka import KafkaConsumer
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import GroupCoordinatorNotAvailableError, KafkaError

from topics.catalogue import NOTICE_REQUESTS, Catalogue
from topics.cluster import Cluster
from topics.provision import admin_of
from wrapper.alert_file import Alert
from wrapper.notify_watcher import NotifyWatcher
from wrapper.reader import asking_of

SESSION_MS = 6_000
HEARTBEAT_MS = 1_000
LOOK_MS = 500
AGAIN_S = 1.0
_HOST = socket.gethostname()

log = logging.getLogger(__name__)


class Crew(threading.Thread):
    """`watch` makes the watcher of a shard; `idle` is called for each shard that falls to somebody else, `bug` when
    this thread can't go on.
    """

    def __init__(
        self,
        alert: Alert,
        cluster: Cluster,
        catalogue: Catalogue,
        *,
        watch: Callable[[int], NotifyWatcher],
        idle: Callable[[int], None],
        bug: Callable[[], None],
    ) -> None:
        super().__init__(name=f"crew.{alert.name}", daemon=True)
        self.alert = alert
        self._cluster, self._catalogue, self._watch, self._idle = cluster, catalogue, watch, idle
        self._bug = bug
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._watchers: dict[int, NotifyWatcher] = {}
        self._leaving: list[NotifyWatcher] = []
        self._group = f"{catalogue.prefix}tidings-wrapper-{alert.name}"

    def run(self) -> None:
        """Follow the group's word until the end; while no broker answers, go on with what is there."""
        try:
            self._until_end()
        except Exception:
            log.exception("a bug in the wrapper alert=%s", self.alert.name)
            self._bug()

    def _until_end(self) -> None:
        alone = True
        while not self._ending.is_set():
            try:
                if alone and self._nobody_else():
                    with self._lock:
                        self._divide(set(range(self.alert.shards)))
                alone = False
                self._follow()
            except KafkaError as error:
                log.warning("no word of the group alert=%s error=%s", self.alert.name, type(error).__name__)
                self._ending.wait(AGAIN_S)

    def end(self) -> None:
        """Ask all to end; from any thread."""
        self._ending.set()
        with self._lock:
            self._divide(set())

    @property
    def ended(self) -> bool:
        """Whether nothing of it runs any more."""
        with self._lock:
            return self._ending.is_set() and not any(w.is_alive() for w in self._leaving)

    def join_all(self) -> None:
        """Wait for that. What hangs on a broker that is away is left behind."""
        for watcher in list(self._leaving):
            watcher.join()
        self.join(timeout=AGAIN_S)

    def _nobody_else(self) -> bool:
        """Whether all that the group still counts as members are processes of this host that have ended."""
        with closing(admin_of(self._cluster)) as admin:
            try:
                (group,) = admin.describe_consumer_groups([self._group])
            except GroupCoordinatorNotAvailableError:  # a new cluster has no groups yet
                return True
        return all(_has_ended(member.client_id) for member in group.members)

    def _follow(self) -> None:
        consumer = KafkaConsumer(
            **self._cluster.for_kafka_python(),
            kafka_client=asking_of(self._catalogue.physical(NOTICE_REQUESTS)),
            client_id=f"{_HOST}:{os.getpid()}",
            group_id=self._group,
            enable_auto_commit=False,
            session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS,
            max_poll_interval_ms=30_000,
            partition_assignment_strategy=[
                type("Sticky", (StickyPartitionAssignor,), {})
            ],  # it keeps state in the class
        )
        try:
            consumer.subscribe([self._catalogue.physical(NOTICE_REQUESTS)], listener=_ReadsNothing(consumer))
            while not self._ending.is_set():
                consumer.poll(timeout_ms=LOOK_MS)
                if mine := {tp.partition for tp in consumer.assignment()}:
                    with self._lock:
                        self._divide({i for i in range(self.alert.shards) if i in mine})
                elif consumer._coordinator.generation() is not None:  # noqa: SLF001 - a member to whom nothing fell
                    with self._lock:
                        self._divide(set())
            with self._lock:
                leaving = list(self._leaving)
            for watcher in leaving:  # what they acknowledged is on the log before another begins
                watcher.join()
        finally:
            consumer.close(autocommit=False)

    def _divide(self, shards: set[int]) -> None:
        """Under the lock: run these and no others; a shard begins again only when its last watcher is gone."""
        if self._ending.is_set():
            shards = set()
        for shard in self._watchers.keys() - shards:
            watcher = self._watchers.pop(shard)
            watcher.end()
            self._leaving.append(watcher)
        self._leaving = [w for w in self._leaving if w.is_alive()]
        leaving = {w.shard for w in self._leaving}
        for shard in range(self.alert.shards):
            if shard not in shards:
                self._idle(shard)
            elif shard not in self._watchers and shard not in leaving:
                self._watchers[shard] = self._watch(shard)
                self._watchers[shard].start()


def _has_ended(client_id: str) -> bool:
    host, _, pid = client_id.rpartition(":")
    return host == _HOST and pid.isdigit() and not psutil.pid_exists(int(pid))


class _ReadsNothing(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member for the assignment alone."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer

    def on_partitions_revoked(self, revoked: Any) -> None:
        """What comes next is known at the assignment."""

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Before anything is fetched."""
        self._consumer.pause(*assigned)
