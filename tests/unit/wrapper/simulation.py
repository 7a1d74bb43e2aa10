"""A log in memory and a scheduler, to run the wrapper's pure parts with faults between any two steps, in the spirit of
the executable model.

The real chain, opening, inputs, conversation, commits and checkpoints are at work; only Kafka, the program and time are
simulated. The oracle, a plain loop over the merged inputs, shares no code with them.
"""

from __future__ import annotations

import json
import random
import threading
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

from topics.catalogue import ALERT_CHECKPOINTS, ALERT_CONFIGS, NOTICE_REQUESTS, Catalogue
from topics.cluster import Cluster
from topics.codec import decode, encode
from topics.events import (
    AlertCommitted,
    AlertConfigDeleted,
    AlertConfigured,
    AlertStarted,
    EntityChanged,
    Event,
    Lane,
    Record,
)
from topics.fetch import Spot
from wrapper.alert_file import Alert
from wrapper.chain import Chain, Verdict
from wrapper.checkpoint import parts
from wrapper.clock import Clock
from wrapper.commits import Commits, Sealed
from wrapper.conversation import Conversation
from wrapper.opening import Opened, meaning, newest_chain, open_run
from wrapper.outbound import Outbound
from wrapper.protocol import Rejected, Stray, parse
from wrapper.reader import Reader
from wrapper.setting import Numbers, Setting, Timing
from wrapper.world import World

TICK = 10
HELD = 15
ALERT = Alert(name="load", run=["load"], entities=["vm"])
OWN = Spot(NOTICE_REQUESTS, 0)


class SimLog:
    """Partitions of (timestamp, key, bytes), and one clock."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.clock, self.calm, self.ids = rng, 1, False, 0
        self.catalogue = Catalogue(("vm",), partitions=2)
        topics = self.catalogue.topics()
        self.partitions: dict[Spot, list[tuple[int, str, bytes]]] = {
            Spot(t.name, p): [] for t in topics.values() for p in range(t.partitions)
        }
        self.kept: World | None = World()  # the host's; null while a wrapper, a frozen one even, has it
        self.limbo: list[bytes] = []
        self.resent = 0

    def append(self, spot: Spot, key: str, data: bytes) -> None:
        self.partitions[spot].append((self.clock, key, data))

    def record(self, spot: Spot, offset: int) -> Record:
        timestamp, key, data = self.partitions[spot][offset]
        return Record(spot.topic, spot.partition, offset, timestamp, key, decode(data))

    def send(self, data: bytes) -> bool:
        """As kafka-python-ng: a failed send may arrive now, later or never, and any may arrive twice."""
        chance = 1.0 if self.calm else self.rng.random()
        if chance < 0.12:
            self.limbo += [data] if chance < 0.08 else []
            return False
        self.append(OWN, ALERT.name, data)
        if chance < 0.18:
            self.limbo.append(data)
        return chance >= 0.15

    def produce(self) -> None:
        """A backend or a configurator at work."""
        rng = self.rng
        self.ids += 1
        spot, key, event = self._change(rng.randrange(4), rng.choice("ab"), rng.random())
        self.append(spot, key, encode(event))

    def _change(self, vm: int, config: str, chance: float) -> tuple[Spot, str, Event]:
        head: dict[str, Any] = {"event_id": str(self.ids), "producer": "sim", "occurred_at": 0}
        if chance < 0.8:
            gone = chance < 0.06
            body = json.dumps({"cpu": self.rng.choice([50, 85, 95, 95, 99])}).encode()
            changed = EntityChanged(
                **head,
                entity_type="vm",
                entity_id=f"v{vm}",
                op="deleted" if gone else "updated",
                body=None if gone else body,
            )
            return Spot("entities.vm", vm % 2), f"v{vm}", changed
        if chance < 0.84:
            return (
                Spot(ALERT_CONFIGS, 0),
                config,
                AlertConfigDeleted(**head, config_id=config, version=1, name=ALERT.name),
            )
        high = self.rng.choice([90, 90, 97])
        text = f'{{"id":"{config}","metric":{{"high":{high}.0,"ver":{self.ids}}}}}'
        configured = AlertConfigured(
            **head,
            config_id=config,
            version=1,
            name=ALERT.name if chance < 0.96 else "another",
            enabled=chance < 0.94,
            lanes=(Lane("email", "email", "recipient", "u1", 1000),),
            forward="",
            body=text.encode(),
        )
        return Spot(ALERT_CONFIGS, 0), config, configured


class SimReader(Reader):
    """The reader's promises, on a SimLog; `disturb` may change the log at every poll."""

    def __init__(self, log: SimLog) -> None:
        self._log, self._catalogue = log, log.catalogue
        self._positions: dict[Spot, int] = {}
        self._resting: set[Spot] = set()

    def ends(self, spots: Iterable[Spot]) -> dict[Spot, int]:
        return {s: len(self._log.partitions[s]) for s in spots}

    def starts(self, spots: Iterable[Spot]) -> dict[Spot, int]:
        return dict.fromkeys(spots, 0)

    def follow(self, positions: dict[Spot, int], *, live: bool = False) -> None:
        self._positions, self._resting = dict(positions), set()

    def poll(self, timeout_ms: float) -> Iterator[Record]:
        if self._log.rng.random() < 0.1:
            self._log.produce()
        if self._log.limbo and self._log.rng.random() < 0.05:
            self._log.append(OWN, ALERT.name, self._log.limbo.pop())
        for spot in self._positions:
            some = self._log.rng.randrange(1, 8)
            while some and spot not in self._resting and self._positions[spot] < len(self._log.partitions[spot]):
                some -= 1
                self._positions[spot] += 1
                yield self._log.record(spot, self._positions[spot] - 1)

    def position(self, spot: Spot) -> int:
        return self._positions[spot]

    def pause(self, spots: Iterable[Spot]) -> None:
        self._resting |= set(spots)

    def resume(self, spots: Iterable[Spot]) -> None:
        self._resting -= set(spots)

    def range(self, positions: dict[Spot, tuple[int, int]]) -> Iterator[Record]:
        for spot, (start, end) in positions.items():
            yield from (self._log.record(spot, o) for o in range(start, end))


class SimOutbound:
    """Where `open_run` writes its AlertStarted: again and again until it is acknowledged."""

    name = "sim"

    def __init__(self, log: SimLog) -> None:
        self._log = log

    def place(self, topic: str, key: str, data: bytes, *, give_up: object) -> bool:
        while not self._log.send(data):
            self._log.resent += 1
        return True


class SimClock(Clock):
    def __init__(self, log: SimLog) -> None:
        self._log = log

    def now(self) -> int:
        return self._log.clock


class Program:
    """Raises when cpu was above `high` for a while, says an event at 99; `done` after `batch` lines. A pure function of
    its lines.
    """

    def __init__(self, batch: int, *, forgetful: bool) -> None:
        self.batch, self.forgetful, self.owed, self.last = batch, forgetful, 0, 0
        self.configs: dict[str, Any] = {}
        self.vms: dict[str, Any] = {}
        self.open: set[str] = set()
        self.since: dict[str, int] = {}
        self.resumed = False

    def line(self, text: bytes) -> Iterator[dict[str, Any]]:
        m = json.loads(text)
        kind = m["type"]
        if kind == "hello":
            self.open, self.since, self.resumed = set(m["open"]), dict(m["state"] or {}), m["resumed"]
            yield {"type": "hello", "v": 1, "tick_s": TICK / 1000, "wants": ["config", "entity"]}
            return
        table = {"config": self.configs, "entity": self.vms}.get(kind)
        if table is not None:
            table.pop(m["id"], None)
            if m["op"] == "set":
                table[m["id"]] = m["value"]
        if not m.get("snapshot"):
            yield from self._decide(kind, m)
        self.owed, self.last = self.owed + 1, m["seq"]
        if self.owed >= self.batch:
            yield self.done()

    def done(self) -> dict[str, Any]:
        """All lines so far."""
        self.owed = 0
        return {"type": "done", "seq": self.last, "state": self.since}

    def _decide(self, kind: str, m: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if kind == "entity":
            pairs = [(c, m["id"]) for c in self.configs] + [
                tuple(k.split("/")) for k in self.open | set(self.since) if k.endswith(m["id"])
            ]
        elif kind == "config":
            pairs = [(m["id"], v) for v in self.vms] + [
                tuple(k.split("/")) for k in self.open | set(self.since) if k.startswith(m["id"])
            ]
        elif kind == "ready":
            pairs = [] if self.resumed else [(c, v) for c in self.configs for v in self.vms]
        else:
            pairs = [tuple(k.split("/")) for k in self.since]
        for c, v in sorted(set(pairs)):
            yield from self._check(c, v, m["now"], news=kind == "entity")

    def _check(self, c: str, v: str, now: int, *, news: bool) -> Iterator[dict[str, Any]]:
        key = f"{c}/{v}"
        about = {"key": key, "config": c, "entity": {"type": "vm", "id": v}, "title": "t"}
        cpu = self.vms[v]["cpu"] if c in self.configs and v in self.vms else None
        if cpu is None and self.forgetful:  # leaves its orphans to the wrapper
            self.since.pop(key, None)
            self.open.discard(key)
            return
        high = self.configs[c]["metric"]["high"] if c in self.configs else 0
        if cpu is None or cpu <= high:
            self.since.pop(key, None)
        if key in self.open and (cpu is None or cpu < high - 10):
            self.open.discard(key)
            yield {"type": "resolve", "key": key}
        elif key in self.open and cpu == 99 and news:
            yield {"type": "notice", "update": True, "data": cpu, **about}
        elif key not in self.open and cpu is not None and cpu > high and now - self.since.setdefault(key, now) >= HELD:
            del self.since[key]
            self.open.add(key)
            yield {"type": "notice", "data": cpu, **about}
        if cpu == 99 and news:
            yield {"type": "notice", "kind": "event", "data": now, **about, "key": f"{key}/peak/{now}"}


def setting_of(log: SimLog, instance: str) -> Setting:
    """Everything that the runs of one instance share."""
    return Setting(
        alert=ALERT,
        cluster=Cluster(""),
        catalogue=log.catalogue,
        outbound=cast("Outbound", SimOutbound(log)),
        clock=SimClock(log),
        instance=instance,
        ending=threading.Event(),
        timing=Timing(),
        numbers=Numbers(),
    )


@dataclass
class Child:
    program: Program
    stdin: deque[bytes] = field(default_factory=deque)
    stdout: deque[bytes] = field(default_factory=deque)
    alive: bool = True

    def step(self) -> None:
        if self.alive and self.stdin:
            self.stdout.extend(json.dumps(m).encode() for m in self.program.line(self.stdin.popleft()))
            if not self.stdin and self.program.owed:
                self.stdout.append(json.dumps(self.program.done()).encode())


class Wrapper:
    """One wrapper process; every `yield` of `steps` is a place to kill it."""

    def __init__(self, log: SimLog, number: int, program: Program, ghosts: dict[int, Opened]) -> None:
        self._log, self.child, self._ghosts = log, Child(program), ghosts
        self.instance = f"sim/{number}"
        self._kept, log.kept = log.kept, None
        self.world = self._kept or World()
        self.steps = self._steps()

    def end(self) -> None:
        """However it comes: the next one finds what is in the file."""
        self._log.kept = self._log.kept or self._kept

    def _steps(self) -> Iterator[None]:
        log, reader = self._log, SimReader(self._log)
        setting = setting_of(log, self.instance)
        chain = newest_chain(reader, setting)
        yield
        opened = open_run(reader, setting, chain, self.world)
        self._ghosts[opened.run] = replace(opened, fold=opened.fold.copy(), follow={})
        commits = Commits(alert=ALERT.name, shard=0, run=opened.run, producer="sim", base=opened.fold, at=log.clock)
        talk = Conversation(
            alert=ALERT.name,
            shard=0,
            shards=1,
            watched=frozenset({"vm"}),
            fold=opened.fold,
            world=opened.world,
            inputs=opened.inputs,
            gap=opened.gap,
            commits=commits,
        )
        child = self.child
        child.stdin.append(talk.hello())
        reader.follow(opened.follow)
        inputs = [s for s in opened.follow if s != OWN]
        while child.alive:
            yield
            what = log.rng.choice(
                ("read", "read", "horizon", "give", "give", "take", "take", "commit", "again", "checkpoint", "store")
            )
            if what == "read":
                if self._read(reader, chain, talk, opened.run, inputs):
                    child.alive = False
                    return
            elif what == "horizon":
                at = log.clock
                yield
                talk.inputs.horizon(at, reader.ends(inputs))
            elif what == "give":
                child.stdin.extend(talk.lines())
            elif what == "take":
                self._take(talk)
            elif what == "store":
                self._store(talk, chain.fold.positions or {})
            elif what in ("commit", "again"):
                made = talk.commit(log.clock) if what == "commit" else commits.again(log.clock, failed=False)
                yield from self._send(commits, made)
            elif chain.run is not None and not chain.held and log.rng.random() < 0.1:
                for key, part in parts(chain, "sim"):
                    log.append(Spot(ALERT_CHECKPOINTS, 0), key, encode(part))
                    yield

        if talk.ready and not commits.under_way and not commits.waiting:
            self.world.save()

    def _store(self, talk: Conversation, accepted: dict[Spot, int]) -> None:
        self.world.store(accepted)
        if talk.ready and self._log.rng.random() < 0.1:
            self.world.save()  # as what was kept back too long: the file is ahead of the log

    def _send(self, commits: Commits, made: list[Sealed]) -> Iterator[None]:
        while made:
            failed = [self._log.send(sealed.data) for sealed in made].count(False) > 0
            self._log.resent += failed
            yield
            made = commits.again(self._log.clock, failed=failed)

    def _read(self, reader: SimReader, chain: Chain, talk: Conversation, run: int, inputs: list[Spot]) -> bool:
        """Whether the run was fenced."""
        for record in reader.poll(0):
            if record.topic != NOTICE_REQUESTS:
                talk.inputs.add(meaning(record, ALERT.name)[0])
                continue
            verdict = chain.apply(record)
            if isinstance(record.event, AlertStarted):
                return True
            if (
                isinstance(record.event, AlertCommitted)
                and record.event.run == run
                and verdict in (Verdict.ACCEPTED, Verdict.HELD)
            ):
                talk.commits.read_back(record.event.number, self._log.clock)
        for spot in inputs:
            talk.inputs.reached(spot, reader.position(spot))
        return False

    def _take(self, talk: Conversation) -> None:
        if self.child.stdout:
            message = parse(self.child.stdout.popleft())
            assert not isinstance(message, Rejected | Stray), message
            talk.heard(message)


@dataclass
class Truth:
    """What an independent reader of the chain makes of it: the effects per key, and where the first run began."""

    effects: dict[str, list[tuple[Any, ...]]]
    chain: Chain
    first_run: int | None


def truth(log: SimLog) -> Truth:
    chain, effects, first = Chain(ALERT.name, 0), defaultdict(list), None
    held: list[Any] = []
    open_: dict[str, str] = {}
    for offset in range(len(log.partitions[OWN])):
        record = log.record(OWN, offset)
        verdict = chain.apply(record)
        if verdict is Verdict.STARTED:
            held = []
        if verdict not in (Verdict.ACCEPTED, Verdict.HELD):
            continue
        event = cast("AlertCommitted", record.event)
        held += event.effects
        if verdict is Verdict.HELD:
            continue
        first = event.run if first is None else first
        for e in held:
            if e.op == "raise":
                assert e.key not in open_, f"raised twice: {e.key}"
                open_[e.key] = e.notice_id
            elif e.op != "event":
                assert open_.get(e.key) == e.notice_id, f"{e.op} of something else: {e.key}"
                if e.op == "resolve":
                    del open_[e.key]
            notice = json.loads(e.body)["notice"]
            effects[e.key].append((e.op, notice["data"], notice.get("metric", {}).get("ver"), e.now))
        held = []
    return Truth(dict(effects), chain, first)


def the_run(  # noqa: C901 - one plain loop, to be read beside the rules
    log: SimLog, opened: Opened, until: int, positions: dict[Spot, int], *, forgetful: bool
) -> dict[str, list[tuple[Any, ...]]]:
    """One program, never interrupted, over the log from where the first run began: one `done` a line."""
    start = opened.fold.positions or {}
    lines: list[tuple[int, int, Spot, int]] = [(0, 0, OWN, 0)]
    for spot in start:
        stamps = log.partitions[spot]
        lines += [(max(stamps[o][0], opened.fold.now), 1, spot, o) for o in range(start[spot], positions[spot])]
    lines += [(g, 0, OWN, 0) for g in range((opened.fold.now // TICK + 1) * TICK, until + 1, TICK)]
    program, out = Program(1, forgetful=forgetful), defaultdict(list)
    configs: dict[str, Any] = {}
    vms: dict[str, Any] = {}
    open_: set[str] = set()

    def put(event: Event | None) -> dict[str, Any] | None:
        if isinstance(event, EntityChanged):
            vms.pop(event.entity_id, None)
            if event.op != "deleted":
                vms[event.entity_id] = json.loads(event.body or b"")
            line = {"type": "entity", "id": event.entity_id, "entity_type": "vm"}
            return line | ({"op": "delete"} if event.op == "deleted" else {"op": "set", "value": vms[event.entity_id]})
        id_ = cast("AlertConfigured", event).config_id
        here = isinstance(event, AlertConfigured) and event.name == ALERT.name and event.enabled
        known = configs.pop(id_, None) is not None
        if here:
            configs[id_] = json.loads(cast("AlertConfigured", event).body)
            return {"type": "config", "id": id_, "op": "set", "value": configs[id_]}
        return {"type": "config", "id": id_, "op": "delete"} if known else None

    for spot in start:
        for offset in range(start[spot]):
            put(log.record(spot, offset).event)
    hello: dict[str, Any] = {"type": "hello", "open": [], "state": None, "resumed": False}
    told = [
        hello,
        *({"type": "config", "id": i, "op": "set", "value": c, "snapshot": True, "seq": 0} for i, c in configs.items()),
    ]
    told += [{"type": "entity", "id": i, "op": "set", "value": v, "snapshot": True, "seq": 0} for i, v in vms.items()]
    for line in told:
        list(program.line(json.dumps(line).encode()))
    for now, kind, spot, offset in sorted(lines):
        at = max(now, opened.fold.now)
        said_to: dict[str, Any] | None
        said_to = put(log.record(spot, offset).event) if kind else {"type": "tick" if now else "ready"}
        said = list(program.line(json.dumps(said_to | {"now": at, "seq": 0}).encode())) if said_to else []
        for m in said:
            if m["type"] == "resolve" and m["key"] in open_:
                open_.discard(m["key"])
                out[m["key"]].append(("resolve", None, None, at))
            elif m["type"] == "notice" and m["config"] in configs:
                op = "event" if m.get("kind") == "event" else "update" if m["key"] in open_ else "raise"
                if op == "event" and m["key"] in out:
                    continue  # remembered
                open_ |= {m["key"]} if op == "raise" else set()
                out[m["key"]].append((op, m["data"], configs[m["config"]]["metric"]["ver"], at))
        for key in [k for k in open_ if k.split("/")[0] not in configs or k.split("/")[1] not in vms]:
            open_.discard(key)
            out[key].append(("resolve", None, None, at))
    return dict(out)
