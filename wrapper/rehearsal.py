"""Plays a program without a broker: the same conversation as in a run, its child process included, but inputs come from
a list, the clock is the list's, and what was settled is heard instead of written to the log.

Strict, as a test has to be: stray text, refused lines and an end of the program are faults.
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
from wrapper.child import Child
from wrapper.commits import Commits
from wrapper.conversation import Conversation
from wrapper.inputs import Inputs
from wrapper.protocol import LineSplitter, Rejected, Stray, parse
from wrapper.scenario import SPOT
from wrapper.world import Change, World

READ_BYTES = 256 * 1024
ANSWER_S = 10.0


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
        self._alert, self._answer_s, self._resumed = alert, answer_s, fold is not None
        self._world, self._fold = World(), fold.copy() if fold else Fold()
        self._fold.positions, self._fold.now = {SPOT: 0}, start
        for change in snapshot:
            self._world.put(change)
        self._begin()

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Its end: nothing of it stays behind."""
        self._child.close_stdin()
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
        readable, _, _ = select.select([child.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            seq = talk.undone[0].seq if talk.undone else 0
            missing = f"no done for line {seq}" if talk.hello_said else "no hello"
            raise Broken(f"{missing} within {self._answer_s:g} s: does it flush stdout?")
        data = os.read(child.stdout, READ_BYTES)
        if not data:
            code = child.exit_code(self._answer_s)
            words = "".join(f"\n  {line}" for line in child.last_words)
            raise Broken(f"it ended ({'still running' if code is None else f'exit code {code}'}){words}")
        for line in self._splitter.feed(data):
            message = parse(line)
            if isinstance(message, Stray):
                yield self._fault("stray text", message.text)
            elif isinstance(message, Rejected):
                yield self._fault(message.reason, message.detail)
            else:
                talk.heard(message)
                yield from self._settled()

    def _settled(self) -> Iterator[Said]:
        talk, heard = self._talk, self._heard
        for effect in heard.effects:
            yield Said(effect.now, as_members(effect))
        for error in talk.errors:
            told = {"type": dumps("error"), "config": dumps(error.config), "text": dumps(error.text)}
            yield Said(talk.fold.now, told)
        for rejected in talk.rejected:
            yield self._fault(rejected.reason, rejected.detail)
        heard.effects, talk.errors, talk.rejected = [], [], []

    def _fault(self, reason: str, detail: str) -> Said:
        return Said(self._talk.fold.now, {"type": dumps(reason), "detail": dumps(detail)}, fault=True)


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
