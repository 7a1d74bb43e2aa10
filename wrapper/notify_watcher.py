"""NotifyWatcher: the thread that follows Kafka for one alert, run after run, and decides when the next one begins.

Restart is the only way to be in step again: after a crash, a gap, a lost fence. It waits longer each time; a program
that never gets anywhere is reported as failed and tried every 10 minutes.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from kafka.errors import KafkaError

from topics.catalogue import ALERT_CHECKPOINTS, ALERT_CONFIGS
from topics.events import AlertConfigured, Record
from wrapper.alert_file import Alert
from wrapper.chain import Chain
from wrapper.checkpoint import aside
from wrapper.child import CannotStart, Child, check
from wrapper.files import fingerprint
from wrapper.opening import WrongShards, newest_chain, open_run
from wrapper.reader import FETCH_WAIT_MS, Reader, Stopped
from wrapper.run import Over, Run
from wrapper.setting import Place, Setting
from wrapper.world import World, WorldError, remove

POISON_AT = 3

log = logging.getLogger(__name__)


class NotifyWatcher(threading.Thread):
    """`spawn` starts a child in the main thread; `settled` is called once the alert is ready or can't be for now; `bug`
    when this thread can't go on.
    """

    def __init__(
        self, setting: Setting, *, spawn: Callable[[Alert], Child], settled: Callable[[], None], bug: Callable[[], None]
    ) -> None:
        super().__init__(name=f"notify.{setting.name}", daemon=True)
        self.shard = setting.shard
        self._setting, self._spawn, self._settled, self._bug = setting, spawn, settled, bug
        self._chain: Chain | None = None  # what was read back is kept from run to run
        self._world: World | None = None
        self._delay = setting.timing.restart
        self._crashes: list[float] = []
        self._last = ("", "")
        self._fresh = True  # the file is news: its number of shards counts
        self._told: bool | None = None  # whether the operators think it gets nowhere; null: who knows
        self._suspects: dict[Place, int] = {}  # the inputs at which it may have ended, and how often it surely did

    def end(self) -> None:
        """Ask it to; from any thread."""
        self._setting.ending.set()

    def run(self) -> None:
        """Run after run, until the end."""
        try:
            while not self._setting.ending.is_set():
                self._once()
        except Stopped:
            log.debug("stopped alert=%s", self._setting.alert.name)
        except Exception:
            log.exception("a bug in the wrapper alert=%s", self._setting.alert.name)
            self._bug()
        finally:
            self._setting.numbers.state = "stopped"
            if self._world is not None:
                self._world.close()

    def _once(self) -> None:
        reader: Reader | None = None
        setting = self._setting
        try:
            check(setting.alert)
            reader = Reader(setting.cluster, setting.catalogue, setting.alert.name, setting.ending)
            self._over(self._one_run(reader), reader)
        except (CannotStart, WrongShards) as error:
            self._again(str(error), kind="failed")
        except KafkaError as error:
            self._chain = None
            self._again(f"no answer from Kafka: {type(error).__name__} {error}".rstrip(), kind="restarted")
        except WorldError as error:  # a damaged file, a full disk
            if self._world is not None:
                self._world.close()
                self._world = None
            if setting.world_file is not None:
                remove(setting.world_file)
            self._again(f"the world's file can't be used, it begins anew: {error}", kind="restarted")
        finally:
            if reader is not None:
                reader.close()

    def _one_run(self, reader: Reader) -> Over:
        setting = self._setting
        if self._chain is None:
            self._chain = newest_chain(reader, setting)
        if self._world is None:
            self._world = World(setting.world_file)
        opened = open_run(reader, setting, self._chain, self._world, may_move=self._fresh)
        self._chain, self._fresh = opened.chain, False
        child = self._spawn(setting.alert)
        pid, name = child.process.pid, setting.alert.name
        log.info("started alert=%s run=%d gap=%s pid=%d", name, opened.run, opened.gap, pid)
        setting.report("started", instance=setting.instance, run=str(opened.run), pid=str(pid))
        setting.numbers.state = "running"
        suspects = frozenset(self._suspects)
        run = Run(setting, reader, self._chain, opened, child=child, settled=self._on_ready, suspects=suspects)
        return run.until_over()

    def _on_ready(self) -> None:
        """The program has got somewhere."""
        self._settled()
        self._operators_know(None)

    # -------------------------------------------------------------- what comes next
    def _over(self, over: Over, reader: Reader) -> None:
        setting = self._setting
        setting.numbers.ends[over.cause] += 1
        if over.progress:
            self._delay = setting.timing.restart
            self._crashes.clear()
        if over.kind == "crashed":
            self._stumble(over)
            self._again(over.reason, kind="restarted", last_words=over.last_words)
            return
        setting.report("stopped", instance=setting.instance, text=over.reason)
        if over.kind == "stopped":
            return
        setting.numbers.state = over.kind
        self._settled()
        log.warning("%s alert=%s reason=%r", over.kind, setting.alert.name, over.reason)
        if over.kind == "standby":
            setting.ending.wait(setting.timing.standby)  # by then the group has said whose it is
        elif over.kind == "waiting":
            self._await_config(reader)
        else:
            setting.ending.wait()

    def _stumble(self, over: Over) -> None:
        """An input at which the program surely ended three times is put aside, and the program goes on. What was only
        outstanding when it ended is a suspect: from then on it is given by itself.
        """
        setting, at = self._setting, over.at
        if at is None:
            return
        self._suspects[at] = self._suspects.get(at, 0) + over.alone
        if self._suspects[at] < POISON_AT:
            return
        spot, offset = at
        del self._suspects[at]
        setting.skipped.add(at)
        name, outbound = setting.alert.name, setting.outbound
        outbound.put(
            ALERT_CHECKPOINTS,
            *aside(name, setting.shard, outbound.name, setting.skipped, fingerprint(setting.alert)),
        )
        where = f"{spot.topic}:{spot.partition}:{offset}"
        log.error(
            "input is put aside: the program ends at it at=%s alert=%s reason=%r", where, setting.name, over.reason
        )
        about = {"topic": spot.topic, "partition": str(spot.partition), "offset": str(offset)}
        setting.outbound.dead_letter(None, b"", **about, reason="poison", detail=over.reason, alert=setting.alert.name)
        setting.report("poison", text=over.reason, stderr=over.last_words, **about)

    def _await_config(self, reader: Reader) -> None:
        """Until a config changes that is, or may have been, this alert's; from where the run has read to."""
        reader.follow({s: reader.position(s) for s in reader.spots([ALERT_CONFIGS])})
        while not self._setting.ending.is_set():
            for record in reader.poll(FETCH_WAIT_MS):
                event = record.event if isinstance(record, Record) else None
                if not isinstance(event, AlertConfigured) or event.name == self._setting.alert.name:
                    return

    def _again(self, reason: str, *, kind: str, last_words: str = "") -> None:
        """Say why, once for each new reason, and wait until the next try."""
        setting, timing, now = self._setting, self._setting.timing, time.monotonic()
        self._settled()
        setting.numbers.restarts += 1
        self._crashes = [at for at in self._crashes if now - at < timing.failed_within] + [now]
        if len(self._crashes) >= timing.failed_restarts:
            kind, delay = "failed", timing.failed_every
        else:
            delay = self._delay * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        self._delay = min(self._delay * 2, timing.restart_most)
        setting.numbers.state = kind
        if (kind, reason) != self._last:
            name = setting.alert.name
            log.error("%s alert=%s reason=%r next_try_s=%.1f stderr=%r", kind, name, reason, delay, last_words)
            setting.report(kind, text=reason, stderr=last_words)
        if kind == "failed":
            self._operators_know(reason)
        self._last = kind, reason
        setting.ending.wait(delay)

    def _operators_know(self, trouble: str | None) -> None:
        """A notice, once, when the alert gets nowhere, and its end when it does."""
        if bool(trouble) == self._told:
            return
        self._told = bool(trouble)
        if self._setting.operators:
            self._setting.outbound.operators(self._setting.operators, self._setting.name, trouble)
