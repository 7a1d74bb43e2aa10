"""Turns settled effects into the numbered records of a run, one commit under way at a time.

A record, once made, is never changed: a send that failed, or that was not read back in time, is repeated byte for byte,
and its number makes the second copy void. What is too large for one record is split; all parts but the last say `more`.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace

from topics.codec import encode
from topics.events import AlertCommitted, Effect, Next
from topics.ids import alert_notice_id, derived_id
from wrapper.chain import Fold, packed

COMMIT_BYTES = 512 * 1024
STATE_BYTES_PER_MINUTE = 5_000_000  # compressed
SILENT_S = 5.0  # positions and state without effects ride on the next commit, or go after this time
READ_BACK_S = 30.0  # not read back by then: sent again


@dataclass(frozen=True, slots=True)
class Sealed:
    """A record of the run as it is sent, however often."""

    number: int
    data: bytes


class Commits:
    """Of one run. `base` is the fold that the run began with; times are monotonic seconds."""

    def __init__(self, *, alert: str, shard: int, run: int, producer: str, base: Fold, at: float) -> None:
        self._alert, self._shard, self._run, self._producer = alert, shard, run, producer
        self._ids = {key: o.notice_id for key, o in base.open.items()}
        self._state = base.state
        self._number = 0
        self._last = at
        self._sent = at
        self._effects: list[Effect] = []
        self._moved = False
        self._written: deque[tuple[float, int]] = deque()
        self.under_way: deque[Sealed] = deque()

    def say(self, effects: list[Effect]) -> None:
        """These, and the positions and state of the fold as it is now, belong to the next commit."""
        self._effects += effects
        self._moved = True

    @property
    def waiting(self) -> bool:
        """Whether anything is not in a commit yet."""
        return self._moved

    def make(self, fold: Fold, at: float, *, now: bool = False) -> list[Sealed]:
        """The records to send now, none while a commit is under way; silent ones only when their time has come, or
        `now`.
        """
        if self.under_way or not self._moved or not (self._effects or now or at - self._last >= SILENT_S):
            return []
        if not now and fold.state != self._state and self._spent(at) > STATE_BYTES_PER_MINUTE:
            return []  # the commit waits, never the state alone
        self._last = self._sent = at
        parts = _cut(self._effects)
        for part in parts[:-1]:
            self._seal(part, fold, more=True)
        self._seal(parts[-1], fold, more=False)
        self._effects, self._moved = [], False
        return list(self.under_way)

    def read_back(self, number: int, at: float) -> None:
        """The record with this number was accepted."""
        while self.under_way and self.under_way[0].number <= number:
            self.under_way.popleft()
            self._sent = at

    def again(self, at: float, *, failed: bool) -> list[Sealed]:
        """What is to be sent once more: all that is under way, in order, after a failure or if it did not come back."""
        if not self.under_way or not (failed or at - self._sent > READ_BACK_S):
            return []
        self._sent = at
        return list(self.under_way)

    def _seal(self, effects: list[Effect], fold: Fold, *, more: bool) -> None:
        self._number += 1
        changed = not more and fold.state != self._state
        event = AlertCommitted(
            event_id=derived_id("commit", self._alert, self._shard, self._run, self._number),
            producer=self._producer,
            occurred_at=time.time_ns() // 1000,
            alert=self._alert,
            shard=self._shard,
            run=self._run,
            number=self._number,
            more=more,
            effects=tuple(self._named(e, i) for i, e in enumerate(effects)),
            positions=() if more else tuple(Next(s.topic, s.partition, n) for s, n in (fold.positions or {}).items()),
            now=fold.now,
            state_changed=changed,
            state=packed(fold.state) if changed else b"",
        )
        if changed:
            self._state = fold.state
            self._written.append((self._sent, len(event.state)))
        self.under_way.append(Sealed(self._number, encode(event)))

    def _spent(self, at: float) -> int:
        while self._written and at - self._written[0][0] > 60:
            self._written.popleft()
        return sum(size for _, size in self._written)

    def _named(self, effect: Effect, index: int) -> Effect:
        """A new notice is named by where it stands; later words about it use that name."""
        if effect.op in ("raise", "event"):
            id_ = alert_notice_id(self._alert, self._shard, self._run, self._number, index)
            if effect.op == "raise":
                self._ids[effect.key] = id_
        elif effect.op == "resolve":
            id_ = self._ids.pop(effect.key)
        else:
            id_ = self._ids[effect.key]
        return replace(effect, notice_id=id_)


def _cut(effects: list[Effect]) -> list[list[Effect]]:
    parts: list[list[Effect]] = [[]]
    size = 0
    for effect in effects:
        weight = len(effect.body) + len(effect.forward) + 300 + 80 * len(effect.lanes) + 100 * len(effect.caused_by)
        if parts[-1] and size + weight > COMMIT_BYTES:
            parts.append([])
            size = 0
        parts[-1].append(effect)
        size += weight
    return parts
