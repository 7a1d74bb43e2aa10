"""Runs the alerts of the given files: one process, and for each alert a NotifyWatcher (Kafka to stdin) and an
AlertWatcher (stdout).

The main thread starts all children (they die with the thread that started them) and waits for the end. Exit codes: 0
stopped as asked, 3 please start me again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from kafka.errors import KafkaError

from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.ids import new_id
from wrapper.alert_file import Alert, load
from wrapper.child import CannotStart, Child
from wrapper.clock import Clock
from wrapper.notify_watcher import NotifyWatcher
from wrapper.outbound import Outbound
from wrapper.reader import Stopped, quiet_farewells
from wrapper.setting import Numbers, Setting, Timing

STOPPED, RESTART_ME = 0, 3
CONNECT_AGAIN_S = 1.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Order:
    """A child asked for by another thread."""

    alert: Alert
    ready: threading.Event = field(default_factory=threading.Event)
    child: Child | None = None
    error: CannotStart | None = None


class _Nursery:
    """Starts children in the thread that calls `work`."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._closed = threading.Event()

    def spawn(self, alert: Alert) -> Child:
        """From any thread. CannotStart, Stopped."""
        order = _Order(alert)
        self._orders.put(order)
        while not order.ready.wait(1):
            if self._closed.is_set():
                raise Stopped
        if order.error is not None:
            raise order.error
        assert order.child is not None  # noqa: S101 - one of the two is there
        return order.child

    def close(self) -> None:
        """`work` returns."""
        self._orders.put(None)

    def work(self) -> None:
        """Until `close`."""
        while (order := self._orders.get()) is not None:
            try:
                order.child = Child(order.alert)
            except CannotStart as error:
                order.error = error
            order.ready.set()
        self._closed.set()


def run(
    cluster: Cluster,
    catalogue: Catalogue,
    files: list[Path],
    *,
    stop: threading.Event,
    ready: Callable[[], None] | None = None,
    numbers: dict[str, Numbers] | None = None,
    timing: Timing | None = None,
) -> int:
    """Until `stop`. `ready` is called once every alert is ready or has failed for the first time; `numbers` is filled
    with what to show of each alert. AlertFileError before anything is started.
    """
    alerts = load(files, catalogue.entity_types)
    quiet_farewells()
    outbound = _connect(cluster, catalogue, stop)
    if outbound is None:
        return STOPPED
    ending, bugs, nursery = threading.Event(), threading.Event(), _Nursery()
    open_ = {a.name for a in alerts}
    lock = threading.Lock()

    def settled(name: str) -> None:
        with lock:
            if name not in open_:
                return
            open_.discard(name)
            if not open_ and ready is not None:
                ready()

    def bug() -> None:
        bugs.set()
        nursery.close()

    instance = f"{outbound.name}/{new_id()[:8]}"
    shown = {} if numbers is None else numbers
    watchers = []
    for alert in alerts:
        shown[alert.name] = Numbers()
        setting = Setting(
            alert, cluster, catalogue, outbound, Clock(), instance, ending, timing or Timing(), shown[alert.name]
        )
        watchers.append(NotifyWatcher(setting, spawn=nursery.spawn, settled=_bound(settled, alert.name), bug=bug))
    threading.Thread(target=_close_on, args=(stop, nursery), name="stop", daemon=True).start()
    for watcher in watchers:
        watcher.start()
    nursery.work()
    ending.set()
    for watcher in watchers:
        watcher.join()
    outbound.close()
    log.info("stopped alerts=%d", len(alerts))
    return RESTART_ME if bugs.is_set() else STOPPED


def _connect(cluster: Cluster, catalogue: Catalogue, stop: threading.Event) -> Outbound | None:
    """The producer, with the schemas published; waits for the broker, until `stop`: then null."""
    while not stop.is_set():
        try:
            outbound = Outbound(cluster, catalogue)
        except KafkaError as error:
            log.warning(
                "no answer from Kafka, trying again bootstrap=%s error=%s", cluster.bootstrap, type(error).__name__
            )
            stop.wait(CONNECT_AGAIN_S)
            continue
        try:
            outbound.publish_schemas()
        except KafkaError as error:
            log.warning(
                "the schemas can't be published, trying again (tidings topics apply?) error=%s", type(error).__name__
            )
            outbound.close()
            stop.wait(CONNECT_AGAIN_S)
            continue
        return outbound
    return None


def _close_on(stop: threading.Event, nursery: _Nursery) -> None:
    stop.wait()
    nursery.close()


def _bound(call: Callable[[str], None], name: str) -> Callable[[], None]:
    return lambda: call(name)
