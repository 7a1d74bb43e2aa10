"""Runs the alerts of the given files: one process, and for each alert that falls to it a NotifyWatcher (Kafka to stdin)
and an AlertWatcher (stdout).

The main thread starts all children (they die with the thread that started them), sees when the files change, and waits
for the end. Exit codes: 0 stopped as asked, 3 please start me again.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from pathlib import Path

from kafka.errors import KafkaError

from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.ids import new_id
from wrapper.alert_file import Alert
from wrapper.child import CannotStart, Child
from wrapper.clock import Clock
from wrapper.crew import Crew
from wrapper.files import Files
from wrapper.notify_watcher import NotifyWatcher
from wrapper.outbound import Outbound
from wrapper.reader import Stopped, quiet_farewells
from wrapper.setting import Numbers, Setting, Timing, shown_as

STOPPED, RESTART_ME = 0, 3
CONNECT_AGAIN_S = 1.0
LOOK_S = 1.0

log = logging.getLogger(__name__)


class _Nursery:
    """Starts children in the thread that calls `work`."""

    def __init__(self) -> None:
        self._orders: queue.SimpleQueue[tuple[Alert, Future[Child]] | None] = queue.SimpleQueue()
        self._closed = threading.Event()

    def spawn(self, alert: Alert) -> Child:
        """From any thread. CannotStart, Stopped."""
        child: Future[Child] = Future()
        self._orders.put((alert, child))
        while not wait([child], timeout=1).done:
            if self._closed.is_set():
                raise Stopped
        return child.result()

    def close(self) -> None:
        """`work` returns."""
        self._orders.put(None)

    def work(self, now_and_then: Callable[[], None]) -> None:
        """Until `close`; `now_and_then` is called about once a second."""
        while True:
            try:
                order = self._orders.get(timeout=LOOK_S)
            except queue.Empty:
                now_and_then()
                continue
            if order is None:
                break
            alert, child = order
            try:
                child.set_result(Child(alert))
            except CannotStart as error:
                child.set_exception(error)
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
    operators: tuple[str, ...] = (),
    state_dir: Path | None = None,
) -> int:
    """Until `stop`. `ready` is called once every alert is ready, has failed for the first time, or runs elsewhere;
    `numbers` is filled with what to show of each; `operators` are the users told when one gets nowhere; worlds are
    kept in `state_dir` from process to process. AlertFileError before anything is started.
    """
    files_now = Files(files, catalogue)
    quiet_farewells()
    outbound = _connect(cluster, catalogue, stop)
    if outbound is None:
        return STOPPED
    bugs, nursery = threading.Event(), _Nursery()
    shown = {} if numbers is None else numbers
    first = _First({shown_as(a, i) for a in files_now.alerts.values() for i in range(a.shards)}, ready)
    instance = f"{outbound.name}/{new_id()[:8]}"

    def bug() -> None:
        bugs.set()
        nursery.close()

    def watch(alert: Alert, shard: int) -> NotifyWatcher:
        name = shown_as(alert, shard)
        setting = Setting(
            alert=alert,
            cluster=cluster,
            catalogue=catalogue,
            outbound=outbound,
            clock=Clock(),
            instance=instance,
            ending=threading.Event(),
            timing=timing or Timing(),
            numbers=shown.setdefault(name, Numbers()),
            shard=shard,
            operators=operators,
            state_dir=state_dir,
        )
        return NotifyWatcher(setting, spawn=nursery.spawn, settled=partial(first.settled, name), bug=bug)

    def idle(alert: Alert, shard: int) -> None:
        name = shown_as(alert, shard)
        shown.setdefault(name, Numbers()).state = "standby"
        first.settled(name)

    def begin(alert: Alert) -> Crew:
        return Crew(alert, cluster, catalogue, watch=partial(watch, alert), idle=partial(idle, alert), bug=bug)

    crews = _Crews(begin, files_now)
    crews.look()
    threading.Thread(target=_close_on, args=(stop, nursery), name="stop", daemon=True).start()
    nursery.work(crews.look)
    crews.end()
    outbound.close()
    log.info("stopped alerts=%d", len(files_now.alerts))
    return RESTART_ME if bugs.is_set() else STOPPED


class _First:
    """Calls `ready` once all of `names` have been settled."""

    def __init__(self, names: set[str], ready: Callable[[], None] | None) -> None:
        self._left, self._ready, self._lock = names, ready, threading.Lock()

    def settled(self, name: str) -> None:
        """From any thread, however often."""
        with self._lock:
            if name in self._left:
                self._left.discard(name)
                if not self._left and self._ready is not None:
                    self._ready()


class _Crews:
    """One crew for each alert of the files as they are now; for the main thread."""

    def __init__(self, begin: Callable[[Alert], Crew], files: Files) -> None:
        self._begin, self._files = begin, files
        self._crews: dict[str, Crew] = {}
        self._prints: dict[str, object] = {}

    def look(self) -> None:
        """End what is gone or was changed; begin what is new, or was changed and has ended."""
        self._files.look()
        wanted = self._files.prints
        for name, crew in list(self._crews.items()):
            if wanted.get(name) != self._prints[name]:
                crew.end()
                if crew.ended:
                    del self._crews[name]
        for name, alert in self._files.alerts.items():
            if name not in self._crews:
                self._prints[name] = wanted[name]
                self._crews[name] = self._begin(alert)
                self._crews[name].start()

    def end(self) -> None:
        """All of them, together."""
        for crew in self._crews.values():
            crew.end()
        for crew in self._crews.values():
            crew.join_all()


def _connect(cluster: Cluster, catalogue: Catalogue, stop: threading.Event) -> Outbound | None:
    """The producer, with the schemas published; waits for the broker, until `stop`: then null."""
    while not stop.is_set():
        outbound: Outbound | None = None
        try:
            outbound = Outbound(cluster, catalogue)
            outbound.publish_schemas()
        except KafkaError as error:
            where, name = cluster.bootstrap, type(error).__name__
            if outbound is None:
                log.warning("no answer from Kafka, trying again bootstrap=%s error=%s", where, name)
            else:
                log.warning("the schemas can't be published, trying again (tidings topics apply?) error=%s", name)
                outbound.close()
            stop.wait(CONNECT_AGAIN_S)
        else:
            return outbound
    return None


def _close_on(stop: threading.Event, nursery: _Nursery) -> None:
    stop.wait()
    nursery.close()
