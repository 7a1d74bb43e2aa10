"""Plays a program without a broker: the same conversation as in a run, its child process included, but inputs come from
a list, the clock is the list's, and what was settled is heard instead of written to the log.

Strict, as a test has to be: stray text, refused lines, what changes nothing and an end of the program are faults.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

from topics.events import Effect
from topics.json_text import dumps, members
from wrapper.alert_file import Alert
from wrapper.chain import Fold
from wrapper.change import Change
from wrapper.child import Child, ending
from wrapper.commits import Commits
from wrapper.conversation import Conversation
from wrapper.inputs import Inputs
from wrapper.protocol import EXCERPT, LineSplitter, Rejected, Stray, parse
from wrapper.scenario import SPOT
from wrapper.world import World

READ_BYTES = 256 * 1024
ANSWER_S = 10.0
MOST_FAULTS = 100
LOOK_S = 0.1  # how often to see whether it is still there
EXIT_S = 1.0  # from the end of its stdout to its own


class Broken(RuntimeError):
    """The program can't be played on; the message says what it did."""


@dataclass(frozen=True, slots=True)
class Said:
    """What counted, at `now` (ms): raw JSON text by member name. `fault`: no message, but something wrong."""

    now: int
    members: dict[str, str]
    fault: bool = False


class _Heard(Commits):
    """Keeps what would be committed; a raise is never sent, so that it needs no record."""

    def __init__(self, alert: str, base: Fold) -> None:
        super().__init__(alert=alert, shard=0, run=0, producer="rehearsal", base=base, at=0.0)
        self.effects: list[Effect] = []

    def say(self, effects: list[Effect]) -> None:
        """Hear it."""
        self.effects += effects


class Rehearsal:
    """One program from its start at `start` (ms), as a context manager in the main thread. `fold` is what its earlier
    runs amount to, null for none. CannotStart, Broken.
    """

    def __init__(
        self, alert: Alert, snapshot: Iterable[Change], start: int, *, fold: Fold | None, answer_s: float = ANSWER_S
    ) -> None:
        if alert.mode == "plain":
            raise Broken("in plain mode nobody knows when a program is done with a line: it can't be played")
        self._alert, self._answer_s, self._resumed = alert, answer_s, fold is not None
        self._faults = 0
        self._world, self._fold = World(), fold.copy() if fold else Fold()
        self._fold.positions, self._fold.now = {SPOT: 0}, start
        for change in snapshot:
            self._world.put(change)
        self._begin()

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing of it stays behind."""
        self._child.close()

    @property
    def open(self) -> list[str]:
        """The keys of the conditions that are open."""
        return sorted(self._talk.fold.open)

    # -------------------------------------------------------------- what happens to it
    def until(self, at: int) -> list[Said]:
        """Let time run up to `at` (ms), and hear what is said meanwhile; the first call waits for `ready`."""
        self._talk.inputs.horizon(at, {})
        return list(self._quiet())

    def give(self, change: Change) -> list[Said]:
        """One change at its own time, wherever it came from: the order of these calls is the order of the inputs."""
        assert self._talk.fold.positions is not None  # noqa: S101 - a rehearsal begins with positions
        placed = replace(change, spot=SPOT, offset=self._talk.fold.positions[SPOT])
        self._talk.inputs.add(placed)
        self._talk.inputs.horizon(placed.timestamp + 1, {SPOT: placed.offset + 1})
        return list(self._quiet())

    def restart(self) -> list[Said]:
        """A kill -9, and on from what it acknowledged."""
        self._child.close()
        self._world, self._fold, self._resumed = self._talk.world, self._talk.fold.copy(), True
        self._begin()
        return self.until(self._fold.now)

    def finish(self) -> list[Said]:
        """The end of its input, at which it has to end."""
        self._child.close_stdin()
        heard: list[Said] = []
        deadline = time.monotonic() + self._answer_s
        while data := self._read(deadline, "it did not end with its input"):
            heard += self._taken(data)
        if self._talk.unsettled:
            heard.append(self._fault("no done", "what was said last has no done, so it does not count"))
        if code := self._child.exit_code(self._answer_s):
            heard.append(self._fault("end", f"exit code {code} at the end of its input"))
        return heard

    # -------------------------------------------------------------- inside
    def _begin(self) -> None:
        self._child = Child(self._alert)
        self._splitter = LineSplitter()
        self._heard = _Heard(self._alert.name, self._fold)
        self._talk = Conversation(
            alert=self._alert.name,
            shard=0,
            shards=1,
            watched=frozenset(self._alert.entities),
            fold=self._fold,
            world=self._world,
            inputs=Inputs(dict(self._fold.positions or {}), self._fold.now),
            gap=not self._resumed,
            commits=self._heard,
        )
        self._child.write([self._talk.hello()])

    def _quiet(self) -> Iterator[Said]:
        """Give what may be given and hear the answers, until every line has its `done`."""
        talk, deadline = self._talk, time.monotonic() + self._answer_s
        while True:
            self._child.write(talk.lines())
            if talk.ready and not talk.undone:
                return
            before = len(talk.undone)
            yield from self._listen(deadline)
            if len(talk.undone) != before:
                deadline = time.monotonic() + self._answer_s

    def _listen(self, deadline: float) -> Iterator[Said]:
        child, talk = self._child, self._talk
        seq = talk.undone[0].seq if talk.undone else 0
        missing = f"no done for line {seq}" if talk.hello_said else "no hello"
        data = self._read(deadline, f"{missing} within {self._answer_s:g} s: does it flush stdout?")
        if not data:
            words = "".join(f"\n  {line}" for line in child.last_words)
            raise Broken(f"{ending(child.exit_code(EXIT_S))[1]}{words}")
        yield from self._taken(data)

    def _read(self, deadline: float, otherwise: str) -> bytes:
        """What it prints next; empty for the end of stdout. Broken, with a reason, at `deadline` (monotonic)."""
        while time.monotonic() < deadline:
            code = self._child.process.poll()
            if select.select([self._child.stdout], [], [], LOOK_S)[0]:
                return os.read(self._child.stdout, READ_BYTES)
            if code is not None:
                raise Broken(f"{ending(code)[1]}, and what it started holds its stdout")
        raise Broken(otherwise)

    def _taken(self, data: bytes) -> Iterator[Said]:
        for line in self._splitter.feed(data):
            message = parse(line)
            if isinstance(message, Stray):
                yield self._fault("stray text", message.text)
            elif isinstance(message, Rejected):
                yield self._rejected(message)
            else:
                self._talk.heard(message)
                yield from self._settled()

    def _settled(self) -> Iterator[Said]:
        talk, heard = self._talk, self._heard
        for effect in heard.effects:
            yield Said(effect.now, as_members(effect))
        for error in talk.errors:
            told = {"type": dumps("error"), "config": dumps(error.config), "text": dumps(error.text)}
            yield Said(talk.fold.now, told)
        for rejected in talk.rejected:
            yield self._rejected(rejected)
        for what in talk.dropped.keys() - {"orphans"}:
            yield self._fault("no effect", what)
        heard.effects, talk.errors, talk.rejected = [], [], []
        talk.dropped.clear()

    def _rejected(self, it: Rejected) -> Said:
        return self._fault(it.reason, it.detail, line=it.line.decode("utf-8", "replace")[:EXCERPT])

    def _fault(self, reason: str, detail: str, **more: str) -> Said:
        self._faults += 1
        if self._faults > MOST_FAULTS:
            raise Broken(f"more than {MOST_FAULTS} faults, the last: {reason}: {detail[:EXCERPT]}")
        told = {"type": reason, "detail": detail} | more
        return Said(self._talk.fold.now, {n: dumps(t) for n, t in told.items()}, fault=True)


def as_members(effect: Effect) -> dict[str, str]:
    """What a program said, in the words of the protocol, with the `metric` that goes with it."""
    notice = members(members(effect.body.decode())["notice"])
    if effect.op == "resolve":
        return {"type": dumps("resolve"), "key": dumps(effect.key), "data": notice["data"]}
    about = None if effect.entity_type is None else {"type": effect.entity_type, "id": effect.entity_id}
    to: dict[str, list[str]] = {}
    for lane in effect.lanes:
        to.setdefault(lane.channel, []).append(lane.value)
    return {
        "type": dumps("notice"),
        "key": dumps(effect.key),
        "config": dumps(effect.config_id),
        "entity": dumps(about),
        "severity": dumps(effect.severity),
        "kind": dumps("event" if effect.op == "event" else "condition"),
        "update": dumps(effect.op == "update"),
        "to": dumps(to),
        **notice,
    }
