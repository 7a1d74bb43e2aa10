"""One run of a program: what it is told, what it has acknowledged, what it said. The heart of the wrapper, without I/O.

Threads call it under one lock: inputs come in, lines go out within a window, messages come back, and at each `done`
they are settled into the commits. Configs and deletes are given alone; there is at most one tick without its `done`;
nothing is committed before `ready` is done.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator

from topics.fetch import Spot
from wrapper import lines
from wrapper.chain import Fold
from wrapper.change import Change
from wrapper.commits import Commits, Sealed
from wrapper.inputs import Inputs, Tick
from wrapper.protocol import DONE, Done, Error, Hello, Message, Notice, Rejected, Resolve
from wrapper.settle import Line, orphans, settle
from wrapper.world import World

WINDOW = 256
QUIET_S = 0.2  # a program that ends after a line has ended by then
BATCH_MESSAGES = 1000
BATCH_BYTES = 2 * 1024 * 1024


class Conversation:
    """`fold` and `world` are as of the run's start and belong to it from now on; `watched` are the alert's entity
    types; `suspects`: inputs at which the program may always end, each given alone, and only when nothing was
    outstanding for a while: so that what it ends at is known. `plain`: there are no `hello` and no `done`.
    """

    def __init__(
        self,
        *,
        alert: str,
        shard: int,
        shards: int,
        watched: frozenset[str],
        fold: Fold,
        world: World,
        inputs: Inputs,
        gap: bool,
        commits: Commits,
        suspects: frozenset[tuple[Spot, int]] = frozenset(),
        plain: bool = False,
    ) -> None:
        self.fold, self.world, self.inputs, self.commits, self.gap = fold, world, inputs, commits, gap
        self._alert, self._shard, self._shards, self._watched = alert, shard, shards, watched
        self.suspects, self.plain = suspects, plain
        self._at, self._quiet_since = 0.0, math.inf
        self.ready = False  # its `done` was read
        self.stopping = False
        self.dropped: Counter[str] = Counter()
        self.errors: list[Error] = []
        self.rejected: list[Rejected] = []
        self.undone: deque[Line] = deque()
        self.hello_said = False
        self._wants = frozenset({"config", "entity", "recipient"})
        self._said: list[Notice | Resolve] = []
        self._said_bytes = self._said_count = 0
        self._outstanding = 0
        self._seq = 0
        self._given_now = fold.now
        self._tick_given = False
        self.ready_seq = -1
        self._placed = not gap  # whether the log has to hear of our positions at once
        self._opening: Iterator[bytes] = iter(())
        if plain:  # nobody says hello, and whatever is given counts as done
            self._hello(Hello(type="hello", v=1))

    def hello(self) -> bytes:
        """The first line. Orphans are no news to a program that begins after a gap."""
        dead = set(orphans(self.fold, self.world, self._watched, self.fold.open)) if self.gap else set()
        return lines.hello(
            alert=self._alert,
            shard=self._shard,
            shards=self._shards,
            gap=self.gap,
            now=self.fold.now,
            state=self.fold.state,
            open_keys=sorted(set(self.fold.open) - dead),
        )

    # -------------------------------------------------------------- towards the program
    def lines(self, at: float = math.inf) -> list[bytes]:
        """All lines that may be given now (monotonic seconds)."""
        out: list[bytes] = []
        self._at = at
        while self._outstanding < WINDOW and not self.stopping and self.hello_said:
            line = next(self._opening, None)
            if line is None:
                line = self._next()
            if not line:
                break
            out.append(line)
            if self.plain:
                self._done(Done(type="done", seq=self._seq))
        return out

    def _next(self) -> bytes | None:
        while (item := self.inputs.peek()) is not None:
            if isinstance(item, Tick):
                if self._tick_given or self._alone_given:
                    return None
                self.inputs.pop(item)
                self._tick_given = True
                line = self._give(item.timestamp, tick=True)
                return lines.tick(line.seq, line.now)
            if self._outstanding and (_alone(item) or self._alone_given):
                return None
            if (item.spot, item.offset) in self.suspects and not self._untold(item) and not self._quiet():
                return None
            self.inputs.pop(item)
            if not self._untold(item):
                line = self._give(item.timestamp, item)
                return lines.change(line.seq, line.now, item)
            self.undone.append(Line(0, self._now(item.timestamp), item))
            self._settle_untold()
        return None

    @property
    def _alone_given(self) -> bool:
        last = self.undone[-1] if self.undone else None
        return last is not None and (last.at in self.suspects or (last.change is not None and _alone(last.change)))

    def _quiet(self) -> bool:
        """Whether nothing has been outstanding for a while."""
        if not self._outstanding and self._quiet_since == math.inf:
            self._quiet_since = self._at
        return not self._outstanding and self._at - self._quiet_since >= QUIET_S

    def _suspects_last(self, things: Iterator[Change]) -> Iterator[Change]:
        last: list[Change] = []
        for change in things:
            if change.kind in self._wants:
                if (change.spot, change.offset) in self.suspects:
                    last.append(change)
                else:
                    yield change
        yield from last

    def _untold(self, change: Change) -> bool:
        if change.kind == "nothing" or change.kind not in self._wants:
            return True
        return change.kind == "config" and change.value is None and self.world.config(change.id) is None

    def _give(
        self, timestamp: int, change: Change | None = None, *, tick: bool = False, snapshot: bool = False
    ) -> Line:
        self._seq += 1
        self._outstanding += 1
        self._quiet_since = math.inf
        at = (change.spot, change.offset) if change else None
        line = Line(self._seq, self._now(timestamp), None if snapshot else change, tick, at)
        self.undone.append(line)
        return line

    def _now(self, timestamp: int) -> int:
        self._given_now = max(self._given_now, timestamp)
        return self._given_now

    def _snapshot(self) -> Iterator[bytes]:
        """The world as of the run's start, then `ready`. It can't change meanwhile: every later line is given after
        `ready`.
        """
        count: dict[str, int] = {"config": 0, "entity": 0, "recipient": 0}
        now = self.fold.now
        for change in self._suspects_last(self.world.things()):
            while (change.spot, change.offset) in self.suspects and not self._quiet():
                yield b""
            count[change.kind] += 1
            yield lines.change(self._give(now, change, snapshot=True).seq, now, change, snapshot=True)
            while self.undone and self.undone[-1].at in self.suspects:
                yield b""
        self.ready_seq = self._give(now).seq
        yield lines.ready(self.ready_seq, now, count)

    @property
    def acknowledged(self) -> bool:
        """Whether the program has done any line."""
        return self._seq > self._outstanding

    @property
    def unsettled(self) -> bool:
        """Whether the program has said something without its `done`."""
        return bool(self._said)

    # -------------------------------------------------------------- from the program
    def heard(self, message: Message, size: int = 0) -> None:
        """One message, `size` bytes long."""
        match message:
            case Hello():
                self._hello(message)
            case Done():
                self._done(message)
            case Error():
                self.errors.append(message)
            case Notice() | Resolve():
                self._said_count += 1
                self._said_bytes += size
                if self._said_count > BATCH_MESSAGES or self._said_bytes > BATCH_BYTES:
                    self._reject(
                        "limit", f"more than {BATCH_MESSAGES} messages or {BATCH_BYTES} bytes between two done", message
                    )
                else:
                    self._said.append(message)
                if self.plain:  # a commit of its own
                    self._done(Done(type="done"))

    def _hello(self, message: Hello) -> None:
        if self.hello_said:
            self._reject("bad_type", "a second hello", message)
            return
        self.hello_said = True
        if message.wants is not None:
            self._wants = frozenset(message.wants) & self._wants
        if message.state == "drop":
            self.fold.state = None
        self.inputs.tick_ms = round(message.tick_s * 1000)
        self._opening = self._snapshot()

    def _done(self, message: Done) -> None:
        if not self.hello_said:
            self._reject("bad_type", "a done before the hello", message)
            return
        if message.seq is not None and message.seq > self._seq:
            self._reject("bad_field", f"done for line {message.seq}, which was not given yet", message)
            return
        first = self._seq - self._outstanding + 1  # outstanding lines have consecutive numbers
        acknowledged = self._oldest(1 if message.seq is None else message.seq - first + 1)
        before = self.fold.state
        if "state" in message.model_fields_set:
            self.fold.state = None if message.state in (None, "null") else message.state
        said, self._said, self._said_count, self._said_bytes = self._said, [], 0, 0
        self._settle(acknowledged, said, state_changed=self.fold.state != before)
        self._settle_untold()

    def done(self, times: int) -> None:
        """As so many plain `done` in a row, of which only the first can have messages before it."""
        for _ in range(times if not self.hello_said else min(times, 1)):
            self._done(DONE)
        if self.hello_said and times > 1:
            self._settle(self._oldest(times - 1), [])
            self._settle_untold()

    def _oldest(self, count: int) -> list[Line]:
        """So many of the lines that the program was told, if there are, and what stands between them."""
        count = max(0, min(count, self._outstanding))
        self._outstanding -= count
        found: list[Line] = []
        while count:
            found.append(self.undone.popleft())
            count -= found[-1].seq > 0
        return found

    def _settle(self, acknowledged: list[Line], said: list[Notice | Resolve], *, state_changed: bool = False) -> None:
        became_ready = not self.ready and any(line.seq == self.ready_seq for line in acknowledged)
        result = settle(self.fold, self.world, self._watched, acknowledged, said, all_orphans=became_ready)
        self.ready = self.ready or became_ready
        if self._tick_given and any(line.tick for line in acknowledged):
            self._tick_given = False
        self.dropped += result.dropped
        for refused, reason, detail in result.refused:
            self._reject(reason, detail, refused)
        if (
            result.effects
            or state_changed
            or (became_ready and self.gap)
            or any(line.is_input for line in acknowledged)
        ):
            self.commits.say(result.effects)

    def commit(self, at: float, *, now: bool = False) -> list[Sealed]:
        """The records to send at this moment; positions are put on the log at once after a gap, and when so much has
        changed that it is to leave the memory.
        """
        if not self.ready:
            return []
        if self.world.full:
            self.world.leave()
            self._placed = False
        made = self.commits.make(self.fold, at, now=now or not self._placed)
        self._placed = self._placed or bool(made)
        return made

    def _settle_untold(self) -> None:
        """What nobody was told needs no `done` of its own: it is settled as soon as all before it is."""
        untold: list[Line] = []
        while self.undone and not self.undone[0].seq:
            untold.append(self.undone.popleft())
        if untold:
            self._settle(untold, [])

    def _reject(self, reason: str, detail: str, message: Message) -> None:
        self.rejected.append(Rejected(reason, detail, message.model_dump_json(exclude_none=True).encode()))


def _alone(change: Change) -> bool:
    """What the wrapper itself acts on is given alone."""
    return change.kind == "config" or (change.kind != "nothing" and change.value is None)
