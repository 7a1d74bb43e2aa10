"""One run of an alert's program, from its start to its end: the loop that follows Kafka while the program lives.

It reads the inputs and the alert's own chain with one long poll, takes horizons, and watches over the program's time
limits. A run ends by a crash, a stop, or an AlertStarted of somebody else; what the program acknowledged before is
committed first, unless the fence was lost.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable

from kafka.errors import KafkaError

from topics.catalogue import ALERT_CHECKPOINTS, NOTICE_REQUESTS
from topics.events import AlertCommitted, AlertMoved, AlertStarted, Record
from topics.fetch import Broken
from wrapper.alert_watcher import AlertWatcher
from wrapper.chain import Chain, Verdict
from wrapper.change import Change, nothing
from wrapper.checkpoint import parts
from wrapper.child import Child, ending
from wrapper.commits import Commits
from wrapper.conversation import Conversation
from wrapper.opening import Opened, meaning, place_of
from wrapper.reader import FETCH_WAIT_MS, Reader
from wrapper.session import Session
from wrapper.setting import Place, Setting

CHECKPOINT_RECORDS = 1000
CHECKPOINT_S = 60.0
RESTING_MS = 10.0  # while partitions rest, how soon to see whether they may be read again
SOON_MS = 20.0  # at the beginning and the end of a run, where something else than Kafka is waited for
FLUSH_S = 10.0
EXIT_S = 1.0  # from the end of its stdout to its own
WAIT_FOR_CONFIG = 78
WEIGH_S = 1.0

log = logging.getLogger(__name__)


class Over(Exception):
    """The run ends. `kind`: crashed, stopped, standby (another instance runs it now), refused (on_reject), waiting (for
    another config).
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(reason)
        self.kind, self.reason = kind, reason
        self.progress = False
        self.last_words = ""
        self.cause = kind  # in a word, for the numbers
        self.at: Place | None = None  # the input that waited for its `done`
        self.alone = False  # and nothing but that can be why


class Run:
    """`settled` is called, again and again, once the program has done `ready`. `suspects` are given alone."""

    def __init__(
        self,
        setting: Setting,
        reader: Reader,
        chain: Chain,
        opened: Opened,
        *,
        child: Child,
        settled: Callable[[], None],
        suspects: frozenset[Place] = frozenset(),
    ) -> None:
        self._setting, self._reader, self._chain, self._child, self._settled = setting, reader, chain, child, settled
        self._name = setting.alert.name
        self._inputs = [s for s in opened.follow if s != setting.own]
        self._session = Session(setting, _conversation(setting, opened, suspects), child)
        self._weighed = 0.0
        self._watcher = AlertWatcher(self._name, child, self._session)
        self._checkpointed, self._checkpoint_at = chain.accepted, time.monotonic()
        self._warned = False
        reader.follow(opened.follow, live=True)

    def until_over(self) -> Over:
        """Run it; how it ended."""
        self._watcher.start()
        over: Over | None = None
        try:
            while over is None:
                try:
                    self._turn()
                    self._look_after()
                except Over as reason:
                    over = reason
            return self._end(over)
        finally:
            self._child.close()

    def _turn(self) -> None:
        """A horizon if it is of use, and one poll."""
        reader, session, chain, clock = self._reader, self._session, self._chain, self._setting.clock
        timeout = RESTING_MS if reader.resting else FETCH_WAIT_MS if session.ready else SOON_MS
        wait = session.wait_ms(clock.now())
        if wait == 0:
            self._horizon(clock.now())
        elif wait is not None:
            timeout = min(timeout, wait)
        self._read(timeout)
        full, hungry = session.full()
        reader.pause(full)
        reader.resume(hungry)
        session.beat(chain.fold.positions or {})
        self._checkpoint()

    def _horizon(self, at: int) -> None:
        try:
            self._session.horizon(at, self._reader.ends(self._inputs))
        except KafkaError as error:  # a broker that is away: nothing is given, and the program lives on
            log.warning("the ends are not known, asking again alert=%s error=%s", self._name, type(error).__name__)

    def _read(self, timeout_ms: float) -> None:
        changes: list[Change] = []
        over: Over | None = None
        latest = 0
        for record in self._reader.poll(timeout_ms):
            latest = max(latest, record.timestamp)
            if record.topic != NOTICE_REQUESTS:
                changes.append(self._change(record))
            elif over is None and isinstance(record, Record):
                over = self._chained(record)
        self._setting.clock.saw(latest)
        self._session.inputs(changes, {s: self._reader.position(s) for s in self._inputs})
        if over is not None:
            raise over

    def _chained(self, record: Record) -> Over | None:
        """Our own records as the log has them; what ends the run."""
        verdict, event = self._chain.apply(record), record.event
        if isinstance(event, AlertStarted) and verdict is Verdict.STARTED:
            if event.instance == self._setting.instance:
                return Over("crashed", "a late copy of our own start opened another run")
            return Over("standby", f"{event.instance} runs this alert now")
        if isinstance(event, AlertMoved) and verdict is Verdict.MOVED:
            return Over("crashed", f"the alert was moved to {event.shards} shards")
        if isinstance(event, AlertCommitted) and verdict in (Verdict.ACCEPTED, Verdict.HELD):
            self._setting.numbers.effects += len(event.effects)
            self._session.read_back(event.number)
        return None

    def _look_after(self) -> None:
        """The limits of section 5; Over when one is reached."""
        session, timing, child = self._session, self._setting.timing, self._child
        if self._setting.ending.is_set():
            raise Over("stopped", "asked to stop")
        if session.ended.is_set():
            raise Over("crashed", "")
        if child.process.poll() is not None:
            child.terminate(signal.SIGKILL)  # somebody it started may still hold its stdout
        now = time.monotonic()
        if not session.greeted and now - session.started > timing.handshake:
            raise self._crashed("no hello", f"no hello within {timing.handshake:g} s: does it flush stdout?")
        if now - self._weighed >= WEIGH_S:
            self._weighed, most = now, self._setting.alert.limits.memory
            if (used := child.resident()) > most:
                raise self._crashed("memory", f"it uses {used >> 20} MiB, its limit is {most >> 20} MiB")
        age = self._setting.numbers.oldest_undone_s = session.oldest_undone_s()
        if age > timing.stuck or (age > timing.silent and now - session.last_line > timing.silent):
            raise self._crashed("no done", f"no done for {age:.0f} s")
        if age > timing.warn and not self._warned:
            log.warning("no done for %d s alert=%s", age, self._name)
        self._warned = age > timing.warn
        if session.rejects_too_much():
            raise self._crashed("rejects", "more than 100 rejected lines within a minute")
        if self._setting.alert.on_reject == "stop" and self._setting.numbers.rejected:
            raise Over("refused", "a line was rejected, and on_reject is stop")
        if session.ready:
            self._settled()

    def _crashed(self, cause: str, reason: str) -> Over:
        over = Over("crashed", reason)
        over.cause = cause
        return over

    # -------------------------------------------------------------- its end
    def _end(self, over: Over) -> Over:
        """Let the program end, commit what it acknowledged, and see that on the log."""
        session, child, timing = self._session, self._child, self._setting.timing
        session.give_no_more()
        code = child.exit_code(EXIT_S) if session.ended.is_set() else None
        try:
            if over.kind == "stopped":
                child.close_stdin()
                self._read_until(session.ended.is_set, timing.stop)
                if not session.ended.is_set():
                    log.warning("still running after the end of its input, terminating it alert=%s", self._name)
                    child.terminate()
                    self._read_until(session.ended.is_set, timing.terminate)
            child.close()
            self._watcher.join(timeout=FLUSH_S)
            over.at = session.oldest_at()
            over.alone = over.at is not None and session.alone(over.at)
            if over.kind != "standby":
                session.commit_now()
                self._read_until(lambda: session.settled, FLUSH_S)
                if session.settled:
                    session.keep_world()
        except Over as fenced:
            over = fenced if over.kind != "stopped" else over
        if not over.reason:
            over.cause, over.reason = ending(code)
            over.kind = "waiting" if code == WAIT_FOR_CONFIG else over.kind
        over.progress = session.progress
        over.last_words = " | ".join(list(child.last_words)[-5:])
        return over

    def _read_until(self, done: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not done() and time.monotonic() < until:
            self._read(SOON_MS)
            self._session.beat(self._chain.fold.positions or {})

    # -------------------------------------------------------------- records
    def _change(self, record: Record | Broken) -> Change:
        if self._setting.skipped and place_of(record) in self._setting.skipped:
            log.warning("record is skipped at=%s alert=%s", place_of(record), self._name)
            return nothing(record)
        change, unreadable = meaning(record, self._name)
        if unreadable:
            log.warning("record can't be read at=%s alert=%s reason=%r", place_of(record), self._name, unreadable)
            key, value = (record.key, record.value) if isinstance(record, Broken) else (record.key.encode(), b"")
            self._setting.outbound.dead_letter(
                key,
                value[: 64 * 1024],
                topic=record.topic,
                partition=str(record.partition),
                offset=str(record.offset),
                reason="unreadable",
                detail=unreadable,
                alert=self._name,
            )
        return change

    def _checkpoint(self) -> None:
        chain = self._chain
        new = chain.accepted - self._checkpointed
        if chain.held or chain.run is None or not new:
            return
        if new >= CHECKPOINT_RECORDS or time.monotonic() - self._checkpoint_at > CHECKPOINT_S:
            for key, part in parts(chain, self._setting.outbound.name):
                self._setting.outbound.put(ALERT_CHECKPOINTS, key, part)
            self._checkpointed, self._checkpoint_at = chain.accepted, time.monotonic()


def _conversation(setting: Setting, opened: Opened, suspects: frozenset[Place]) -> Conversation:
    commits = Commits(
        alert=setting.alert.name,
        shard=setting.shard,
        run=opened.run,
        producer=setting.outbound.name,
        base=opened.fold,
        at=time.monotonic(),
    )
    return Conversation(
        alert=setting.alert.name,
        shard=setting.shard,
        shards=setting.alert.shards,
        watched=frozenset(setting.alert.entities),
        fold=opened.fold,
        world=opened.world,
        inputs=opened.inputs,
        gap=opened.gap,
        commits=commits,
        suspects=suspects,
        plain=setting.alert.mode == "plain",
    )
