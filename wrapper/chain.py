"""The chain of an alert's commits, as every reader of `notice-requests` folds it.

A commit counts only if its run is the newest AlertStarted before it and its number is the next: a zombie's record, a
late copy and a repeat change nothing. Parts of a split commit are held until the last one comes; an AlertStarted in
between voids them.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum

from topics.events import AlertCommitted, AlertMoved, AlertStarted, Effect, Record
from topics.fetch import Spot

REMEMBER_MS = 30 * 86_400_000  # how long the key of an event notice is remembered, in log time


@dataclass(frozen=True, slots=True)
class Open:
    """An open condition: its notice, and what it is about."""

    notice_id: str
    config_id: str
    entity_type: str | None
    entity_id: str | None
    severity: str


@dataclass(slots=True)
class Fold:
    """What the accepted commits amount to; the wrapper runs ahead on a copy. `positions` null: there is no commit.
    `state`: JSON text.
    """

    open: dict[str, Open] = field(default_factory=dict)
    events: dict[str, int] = field(default_factory=dict)
    positions: dict[Spot, int] | None = None
    now: int = 0
    state: str | None = None
    _crowd: int = field(default=1000, repr=False, compare=False)

    def copy(self) -> Fold:
        """Changing the copy leaves this one as it is."""
        return Fold(
            dict(self.open),
            dict(self.events),
            None if self.positions is None else dict(self.positions),
            self.now,
            self.state,
        )

    def apply(self, effect: Effect) -> None:
        """Take one effect in."""
        match effect.op:
            case "raise":
                self.open[effect.key] = Open(
                    effect.notice_id, effect.config_id, effect.entity_type, effect.entity_id, effect.severity
                )
            case "update" if effect.key in self.open:
                self.open[effect.key] = replace(self.open[effect.key], severity=effect.severity)
            case "resolve":
                self.open.pop(effect.key, None)
            case "event":
                self.events[effect.key] = effect.now
                if len(self.events) > self._crowd:
                    self.forget()
                    self._crowd = 2 * len(self.events) + 1000

    def remembers(self, key: str, now: int) -> bool:
        """Whether the event notice `key` was said within the last 30 days of log time."""
        said = self.events.get(key)
        return said is not None and now - said < REMEMBER_MS

    def forget(self) -> None:
        """Drop the event keys that no longer matter; `now` never goes back, so no decision changes."""
        self.events = {k: at for k, at in self.events.items() if self.now - at < REMEMBER_MS}


class Verdict(Enum):
    """What a record was to the chain."""

    STARTED = "a new run"
    MOVED = "all runs ended"
    HELD = "part of a split commit"
    ACCEPTED = "a commit"
    REFUSED = "void"
    OTHER = "not of this alert and shard"


class Chain:
    """The fold of one alert's shard over the records of its partition; `upto` is the next offset to read."""

    def __init__(self, alert: str, shard: int) -> None:
        self.alert, self.shard = alert, shard
        self.fold = Fold()
        self.run: int | None = None
        self.number = 0
        self.shards = 1  # of the newest AlertMoved
        self.stale = False  # a move has dealt the keys out anew, which only all shards together know: see Chains
        self.upto = 0
        self.accepted = 0
        self.held: list[AlertCommitted] = []

    def apply(self, record: Record) -> Verdict:
        """The next record of the partition, whoever it belongs to."""
        self.upto = record.offset + 1
        match record.event:
            case AlertStarted(alert=self.alert, shard=self.shard) as event:
                if event.shards != self.shards:
                    return Verdict.REFUSED
                self.run, self.number, self.held = record.offset, 0, []
                return Verdict.STARTED
            case AlertMoved(alert=self.alert) as event:
                self.shards, self.run, self.number, self.held = event.shards, None, 0, []
                self.fold.positions, self.fold.state = None, None  # a move is a gap: open keys stay, state goes
                self.stale = True
                return Verdict.MOVED
            case AlertCommitted(alert=self.alert, shard=self.shard) as event:
                return self._commit(event)
        return Verdict.OTHER

    def _commit(self, event: AlertCommitted) -> Verdict:
        if event.run != self.run or event.number != self.number + 1:
            return Verdict.REFUSED
        self.number = event.number
        self.held.append(event)
        if event.more:
            return Verdict.HELD
        for part in self.held:
            for effect in part.effects:
                self.fold.apply(effect)
        self.fold.positions = {Spot(n.topic, n.partition): n.next for n in event.positions}
        self.fold.now = event.now
        if event.state_changed:
            self.fold.state = unpacked(event.state)
        self.held = []
        self.accepted += 1
        return Verdict.ACCEPTED


class Chains:
    """The folds of all shards of one alert, from the beginning of its partition on. After an AlertMoved each open key
    belongs to the shard that `home` names for it.
    """

    def __init__(self, alert: str, home: Callable[[Open, int], int]) -> None:
        self._alert, self._home = alert, home
        self._of = {0: Chain(alert, 0)}

    def of(self, shard: int) -> Chain:
        """The chain of one shard. KeyError if there are fewer."""
        return self._of[shard]

    def apply(self, record: Record) -> None:
        """The next record of the partition."""
        for chain in self._of.values():
            chain.apply(record)
        if isinstance(record.event, AlertMoved) and record.event.alert == self._alert:
            self._deal(record.event.shards, record.offset + 1)

    def _deal(self, shards: int, upto: int) -> None:
        was = [chain.fold for chain in self._of.values()]
        self._of = {}
        for shard in range(shards):
            chain = self._of[shard] = Chain(self._alert, shard)
            chain.shards, chain.upto = shards, upto
            chain.fold.now = max(fold.now for fold in was)
            for fold in was:
                chain.fold.open |= {k: o for k, o in fold.open.items() if self._home(o, shards) == shard}
                chain.fold.events |= fold.events  # whoever says one again is known to all


def packed(state: str | None) -> bytes:
    """A program's state as it stands in a commit: empty for none."""
    return b"" if state is None else zlib.compress(state.encode(), 1)


def unpacked(data: bytes) -> str | None:
    """The inverse of `packed`."""
    return zlib.decompress(data).decode() if data else None
