"""One running program: the lock under which the threads meet, and the only place where a conversation's words become
I/O.

Whoever brings news (inputs from Kafka, lines from stdout, a commit read back) pumps: what may be given goes to stdin,
what may be committed goes to the log, at once and by that same thread.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Iterable

from topics.fetch import Spot
from wrapper.change import Change
from wrapper.child import Child
from wrapper.conversation import Conversation
from wrapper.protocol import DONE, EXCERPT, Error, Message, Rejected, Stray, TooLong, parse
from wrapper.setting import Place, Setting
from wrapper.world import WorldError

REJECTS_PER_MINUTE = 100
STRAYS_PER_S = 100
LINES_AT_ONCE = 32

log = logging.getLogger(__name__)


class Session:
    """From the start of a program to its end; safe to call from any thread."""

    def __init__(self, setting: Setting, conversation: Conversation, child: Child) -> None:
        self._setting, self._talk, self._child = setting, conversation, child
        self._name, self._numbers = setting.alert.name, setting.numbers
        self._lock = threading.Lock()
        self._send_failed = threading.Event()
        self._flush = False
        self._rejects: deque[float] = deque()
        self._strays: deque[float] = deque()
        self._head, self._head_since = 0, time.monotonic()
        self.started = time.monotonic()
        self.last_line = time.monotonic()
        self.progress = False  # a line after `ready` was acknowledged
        self.ended = threading.Event()  # stdout is at its end
        self.world_failed: WorldError | None = None
        if not conversation.plain:
            child.write([conversation.hello()])

    # -------------------------------------------------------------- news
    def heard(self, lines: Iterable[bytes | TooLong]) -> None:
        """Lines of stdout; a few at a time, so that the program gets new lines while the rest is looked at."""
        self.last_line = time.monotonic()
        rest = iter(lines)
        while some := list(itertools.islice(rest, LINES_AT_ONCE)):
            self._heard(
                [(parse(line), line.length if isinstance(line, TooLong) else len(line)) for line in some if line]
            )

    def _heard(self, messages: list[tuple[Message | Stray | Rejected, int]]) -> None:
        refused: list[Rejected] = []
        with self._lock:
            dones = 0
            for message, size in messages:
                if message is DONE:
                    dones += 1
                    continue
                self._talk.done(dones)
                dones = 0
                if isinstance(message, Rejected):
                    refused.append(message)
                elif isinstance(message, Stray):
                    self._stray(message.text)
                else:
                    self._talk.heard(message, size)
            self._talk.done(dones)
            refused += self._talk.rejected
            errors = self._talk.errors
            self._talk.rejected, self._talk.errors = [], []
            self._pump()
        for rejected in refused:
            self._rejected(rejected)
        for error in errors:
            self._error(error)

    def inputs(self, changes: list[Change], reached: dict[Spot, int]) -> None:
        """What was read from Kafka, and how far."""
        with self._lock:
            for change in changes:
                self._talk.inputs.add(change)
            for spot, offset in reached.items():
                self._talk.inputs.reached(spot, offset)
            self._numbers.inputs += len(changes)
            self._pump()

    def horizon(self, at: int, ends: dict[Spot, int]) -> None:
        """The clock was read, then the ends were asked."""
        with self._lock:
            self._talk.inputs.horizon(at, ends)
            self._pump()

    def read_back(self, number: int) -> None:
        """A record of this run was accepted."""
        with self._lock:
            self._talk.commits.read_back(number, time.monotonic())
            self._numbers.commits += 1
            self._pump()

    def beat(self, accepted: dict[Spot, int]) -> None:
        """Now and then: silent commits, what has to be sent again, and what may leave the memory; `accepted` are the
        positions of the last commit. WorldError, the other thread's too.
        """
        if self.world_failed is not None:
            raise self.world_failed
        with self._lock:
            failed = self._send_failed.is_set()
            self._send_failed.clear()
            for sealed in self._talk.commits.again(time.monotonic(), failed=failed):
                self._setting.outbound.commit(self._name, sealed.data, self._send_failed.set)
            self._talk.world.store(accepted)
            self._pump()

    def give_no_more(self) -> None:
        """The program gets no further lines; what it still says counts."""
        with self._lock:
            self._talk.stopping = True

    def keep_world(self) -> None:
        """So that the next run need not read again what is on the log and `settled`."""
        with self._lock:
            self._talk.world.save()

    def commit_now(self) -> None:
        """What was acknowledged goes to the log, silent or not."""
        with self._lock:
            self._flush = True
            self._pump()

    # -------------------------------------------------------------- questions
    @property
    def settled(self) -> bool:
        """Whether all that was acknowledged is on the log and was read back."""
        with self._lock:
            return not self._talk.commits.under_way and not (self._talk.ready and self._talk.commits.waiting)

    def wait_ms(self, now: int) -> int | None:
        """How long until a new horizon is of use."""
        with self._lock:
            return self._talk.inputs.wait_ms(now)

    def full(self) -> tuple[list[Spot], list[Spot]]:
        """Partitions whose reading has to rest, and those that may be read again."""
        with self._lock:
            return list(self._talk.inputs.full()), list(self._talk.inputs.hungry())

    @property
    def greeted(self) -> bool:
        """Whether the program said hello."""
        return self._talk.hello_said

    @property
    def ready(self) -> bool:
        """Whether `ready` is done."""
        return self._talk.ready

    def oldest_undone_s(self) -> float:
        """The age of the oldest line without `done`: the pulse."""
        with self._lock:
            return time.monotonic() - self._head_since if self._talk.undone else 0.0

    def oldest_at(self) -> Place | None:
        """Where the input stands that waits longest for its `done`; null if it is none, or nothing waits."""
        with self._lock:
            return self._talk.undone[0].at if self._talk.undone else None

    def alone(self, at: Place) -> bool:
        """Whether this input was given by itself to a program that does others: then it is what it ended at."""
        return at in self._talk.suspects and self._talk.acknowledged

    def rejects_too_much(self) -> bool:
        """More than 100 rejected lines within a minute."""
        return len(self._rejects) > REJECTS_PER_MINUTE

    # -------------------------------------------------------------- inside the lock
    def _pump(self) -> None:
        self._child.write(self._talk.lines(time.monotonic()))
        for sealed in self._talk.commit(time.monotonic(), now=self._flush):
            self._setting.outbound.commit(self._name, sealed.data, self._send_failed.set)
        head = self._talk.undone[0].seq if self._talk.undone else 0
        if head != self._head:
            self.progress = self.progress or (self._talk.ready and self._head > self._talk.ready_seq)
            self._head, self._head_since = head, time.monotonic()
        self._numbers.open = len(self._talk.fold.open)
        self._numbers.dropped = sum(self._talk.dropped.values())

    # -------------------------------------------------------------- for people
    def _stray(self, text: str) -> None:
        now = time.monotonic()
        while self._strays and now - self._strays[0] > 1:
            self._strays.popleft()
        if len(self._strays) < STRAYS_PER_S:
            self._strays.append(now)
            logging.getLogger(f"alert.{self._name}").info("stdout: %s", text[: EXCERPT * 4])

    def _rejected(self, it: Rejected) -> None:
        now = time.monotonic()
        self._rejects.append(now)
        while now - self._rejects[0] > 60:
            self._rejects.popleft()
        self._numbers.rejected += 1
        excerpt = it.line.decode("utf-8", "replace")[:EXCERPT]
        log.warning("line rejected alert=%s seq=%d reason=%s detail=%r", self._name, self._head, it.reason, it.detail)
        self._setting.outbound.dead_letter(
            self._name.encode(),
            excerpt.encode(),
            alert=self._name,
            shard=str(self._setting.shard),
            seq=str(self._head),
            reason=it.reason,
            detail=it.detail,
            sha256=hashlib.sha256(it.line).hexdigest(),
        )
        self._setting.report("rejected", reason=it.reason, text=it.detail, line=excerpt)

    def _error(self, it: Error) -> None:
        log.info("config has an error alert=%s config=%s text=%r", self._name, it.config, it.text)
        self._setting.report("error", config_id=it.config, text=it.text)
