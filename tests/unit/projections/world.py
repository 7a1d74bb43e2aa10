"""A log in memory, workers over a real SQLite file, and faults between any two of their steps.

The workers run the real folds, commits, outbox and clock queries, one atomic action at a time, chosen by a seed. What
is simulated is only what surrounds the product's code: the broker, the group, time.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy import select

from projections.forwarding import due_id
from projections.outgoing import Outgoing
from projections.refold import Refold
from projections.sql import outbox, positions
from projections.sql.commit import OtherRows, commit, sweep
from projections.sql.fold import Decider
from projections.sql.folds import fold_of
from projections.sql.schema import outbox as outbox_table
from projections.sql.schema import steps
from projections.sql.shadow import beside
from projections.sql.store import Store, generation, next_offsets, wipe
from projections.sql.swap import FOLDED, fenced
from projections.sql.waits import due
from topics.catalogue import CONTROLS, DEAD_LETTERS, DELIVERIES, NOTICE_REQUESTS, NOTICES, RECIPIENTS
from topics.codec import Undecodable, decode, encode
from topics.dead_letters import from_headers
from topics.events import (
    AlertCommitted,
    AlertStarted,
    DeliveryFailed,
    DeliveryRequested,
    DeliverySent,
    Due,
    Effect,
    Event,
    Lane,
    NoticeMarked,
    NoticeRaised,
    NoticeRequested,
    NoticeResolved,
    PreferencesChanged,
    RecipientChanged,
    Record,
    SilenceSet,
    TopicOpened,
)
from topics.fetch import Broken, Item, Spot
from topics.partition import partition_of

USERS, ALERTS = ("ann", "bob", "cyd"), ("overuse", "task")
PARTITIONS = {DEAD_LETTERS: 1, RECIPIENTS: 1, CONTROLS: 1, DELIVERIES: 2, NOTICES: 2, NOTICE_REQUESTS: 2}
SPOTS = [Spot(t, p) for t, n in PARTITIONS.items() for p in range(n)]
STEPS = (("email", 50), ("telegram", 150))
REPEAT_AFTER = 300
END_ALL_AFTER, READ_ALL_AFTER = 15, 40
UNSETTLED = ("waiting", "asked", "collected", "gathered")
POLICIES = (
    "", "", "",
    '{"digest":"80ms"}',
    '{"throttle":{"max":1,"per":"200ms"}}',
    '{"throttle":{"max":2,"per":"150ms"},"digest":"40ms","repeat":"90ms"}',
    '{"repeat":"120ms","tell_resolved":true}',
    '{"tell_resolved":true,"override":["error"],"digest":"30ms"}',
)  # fmt: skip
WISHES = ("false", "true", '{"digest":"60ms"}', '{"after":"20ms"}', '{"after":"130ms"}', '{"enabled":false}')


class Log:
    """Partitions of records with the broker's time."""

    def __init__(self) -> None:
        self.now, self.made = 1_000, 0
        self.parts: dict[Spot, list[Item]] = {s: [] for s in SPOTS}
        for spot in SPOTS:
            opened = TopicOpened(
                event_id=f"opened {spot}",
                producer="",
                occurred_at=0,
                topic=spot.topic,
                partition=spot.partition,
                partitions=1,
            )
            self.parts[spot].append(Record(spot.topic, spot.partition, 0, self.now, "", opened))

    def append(self, topic: str, key: str, value: bytes, headers: tuple[tuple[str, bytes], ...] = ()) -> int:
        spot = Spot(topic, partition_of(key, PARTITIONS[topic]))
        offset = len(self.parts[spot])
        item: Item | None = from_headers(spot.partition, offset, self.now, value, headers) if headers else None
        if item is None:
            try:
                item = Record(*spot, offset, self.now, key, decode(value), value)
            except Undecodable as broken:
                item = Broken(*spot, offset, self.now, key.encode(), value, str(broken))
        self.parts[spot].append(item)
        return self.now

    def say(self, topic: str, key: str, event: Event) -> None:
        self.append(topic, key, encode(event))

    def new_id(self) -> str:
        self.made += 1
        return f"id-{self.made}"


class Worker:
    """What it believes (positions, ownership, batches in hand, cursors), and its producer's queue."""

    def __init__(self, world: World) -> None:
        self.world, self.log, self.rng = world, world.log, world.rng
        self.folds = {t: fold_of(t) for t in PARTITIONS}
        self.skew = self.rng.randint(-120, 120)
        self.begin()

    def begin(self) -> None:
        """As at a start: nothing is owned yet, the ends are noted."""
        self.at: dict[Spot, tuple[int, int]] = {}
        self.hand: dict[Spot, list[Item]] = {}
        self.rest: dict[Spot, tuple[tuple[int, int], Sequence[Outgoing]]] = {}
        self.cursor: dict[Spot, tuple[int, int]] = {}
        self.sent_at: dict[Spot, int] = {}
        self.said: dict[str, int] = {}
        self.net: list[outbox.Waiting] = []
        self.swept: set[Spot] = set()
        self.barrier, self.ready = {s: len(p) for s, p in self.log.parts.items()}, False
        with self.world.store.reading() as tx:
            self.rows_of = generation(tx)[1]

    def watch(self) -> None:
        """Rows that were rebuilt are noticed, sooner or later."""
        with self.world.store.reading() as tx:
            rows_of = generation(tx)[1]
        if rows_of != self.rows_of:
            self.world.restart(self)

    def sync(self) -> None:
        """Learn of the assignment; until then it goes on with stale ownership."""
        mine = {s for s in SPOTS if self.world.group.get(s) is self}
        with self.world.store.writing() as tx:
            self.at = {s: self.at[s] if s in self.at else self._read(tx, s) for s in mine}
        self.hand = {s: b for s, b in self.hand.items() if s in mine}
        self.cursor = {s: c for s, c in self.cursor.items() if s in mine}
        self.swept &= mine

    def _read(self, tx: object, spot: Spot) -> tuple[int, int]:
        p = positions.at_assignment(tx, spot, "epoch")  # type: ignore[arg-type]
        return p.next, p.done

    def fetch(self, spot: Spot) -> None:
        start = self.at[spot][0]
        self.hand[spot] = self.log.parts[spot][start : start + self.rng.randint(1, 4)]

    def caught_up(self) -> bool:
        if not self.ready:
            with self.world.store.reading() as tx:
                found = next_offsets(tx)
            self.ready = all(found.get(s, 0) >= end for s, end in self.barrier.items())
        return self.ready

    def commit(self, spot: Spot) -> None:
        batch, at = self.hand.pop(spot), self.at.get(spot)
        with self.world.store.reading() as tx:
            letters = next_offsets(tx).get((DEAD_LETTERS, 0), 0)
        if at is None or (spot.topic != DEAD_LETTERS and letters < self.barrier[Spot(DEAD_LETTERS, 0)]):
            return
        batch = [i for i in batch if i.offset >= at[0]]
        if not batch:
            return
        decider = Decider("worker", self.log.now) if self.caught_up() else None
        half, rest = self.rest.pop(spot, (at, ()))
        try:
            done = commit(
                self.world.store, self.folds[spot.topic], spot, batch, at, self.rows_of,
                decider=decider, mark=True, rest=rest if half == at else (),
            )  # fmt: skip
            if done.rest:
                self.rest[spot] = (done.next, done.done), done.rest
        except positions.FenceLost:
            with self.world.store.writing() as tx:
                found = positions.read(tx, spot)
            if (found.next, found.done) < at:
                self.world.restart(self)
            else:
                self.at[spot] = (found.next, found.done)
        except OtherRows:
            self.world.restart(self)
        else:
            self.at[spot] = (done.next, done.done)

    def sweep(self, spot: Spot) -> None:
        if spot.topic != NOTICES or spot in self.swept or not self.caught_up():
            return
        try:
            sweep(
                self.world.store,
                self.folds[NOTICES],
                spot,
                self.at[spot],
                self.rows_of,
                Decider("worker", self.log.now),
            )
            self.swept.add(spot)
        except positions.FenceLost:
            self.at.pop(spot)
            self.sync()
        except OtherRows:
            self.world.restart(self)

    def relay(self, spot: Spot) -> None:
        if not self.caught_up() or len(self.net) > 6:
            return
        with self.world.store.reading() as tx:
            if generation(tx)[1] != self.rows_of:
                return
            rows = outbox.lane(tx, spot, self.cursor.get(spot, (-1, -1)), self.rng.randint(1, 3))
        if not rows and self.log.now - self.sent_at.get(spot, 0) > REPEAT_AFTER:
            self.cursor.pop(spot, None)
            self.sent_at[spot] = self.log.now
        for row in rows:
            self.cursor[spot], self.sent_at[spot] = (row.source_offset, row.position), self.log.now
            self.net.append(row)

    def clock(self) -> None:
        if not self.caught_up():
            return
        owned = [s.partition for s in self.at if s.topic == NOTICES]
        with self.world.store.reading() as tx:
            if generation(tx)[1] != self.rows_of:
                return
            waits = due(tx, owned, self.log.now + self.skew, 5)
        for w in waits:
            identity = due_id(w.user, w.notice_id, w.step)
            if self.log.now - self.said.get(identity, -REPEAT_AFTER) < REPEAT_AFTER:
                continue
            self.said[identity] = self.log.now
            e = Due(
                event_id=identity, producer="clock", occurred_at=0, user=w.user, notice_id=w.notice_id,
                what=w.step.what, step=w.step.step, number=w.step.number, due_at=w.step.due_at,
            )  # fmt: skip
            self.net.append(outbox.Waiting(-1, -1, identity, NOTICES, w.user, encode(e), ()))


class World:
    """The scheduler with its faults."""

    def __init__(self, seed: int, folder: Path, steps: int = 420) -> None:
        self.rng, self.log, self.folder = random.Random(seed), Log(), folder
        self.path = folder / f"{seed}.db"
        self.store = Store(f"sqlite:///{self.path}")
        self.store.prepare()
        self.ghosts: list[list[outbox.Waiting]] = []
        self.runs: dict[str, tuple[int, int]] = {}
        self.keys: list[Callable[[], None]] = []
        self.backup: Path | None = None
        self.group: dict[Spot, Worker] = {}
        self.workers = [Worker(self) for _ in range(2)]
        self.rebalance()
        for w in self.workers:
            w.sync()
        for user in USERS[:2]:
            self.recipient(user, f"{user}@example.test")
        kinds = {
            "work": 75,
            "relay": 16,
            "clock": 6,
            "broker": 20,
            "sync": 3,
            "mark": 10,
            "request": 4,
            "prefs": 3,
            "silence": 1.5,
            "post": 4,
            "again": 1.5,
            "wait": 5,
        }
        faults = {
            "kill": 1.2,
            "rebalance": 1.5,
            "producer": 3,
            "skew": 0.6,
            "wipe": 0.3,
            "restore": 0.4,
            "copy": 0.6,
            "poison": 0.5,
            "swap": 0.4,
        }
        kinds |= {f: w for f, w in faults.items() if self.rng.random() < 0.6}
        for name in self.rng.choices(list(kinds), list(kinds.values()), k=steps):
            self.log.now += self.rng.choice((0, 0, 0, 10, 10, 20))
            getattr(self, f"do_{name}")()

    # ---- processes
    def worker(self) -> Worker:
        return self.rng.choice(self.workers)

    def rebalance(self) -> None:
        self.group = {s: self.worker() for s in SPOTS}

    def restart(self, w: Worker) -> None:
        """The process ends; another one begins in its place."""
        if self.rng.random() < 0.6:
            self.ghosts.append(w.net)
        w.begin()
        w.sync()

    def do_work(self) -> None:
        w = self.worker()
        if w.hand and self.rng.random() < 0.6:
            w.commit(self.rng.choice(sorted(w.hand)))
        elif w.at:
            spot = self.rng.choice(sorted(w.at))
            if spot not in w.hand:
                w.fetch(spot)
            w.sweep(spot)

    def do_relay(self) -> None:
        w = self.worker()
        for spot in sorted(w.at):
            w.relay(spot)

    def do_clock(self) -> None:
        self.worker().clock()

    def do_sync(self) -> None:
        w = self.worker()
        w.watch()
        w.sync()

    def do_broker(self) -> None:
        queues = [w.net for w in self.workers if w.net] + [g for g in self.ghosts if g]
        for _ in range(self.rng.randint(1, 4)):
            self.land(self.rng.choice(queues) if queues else [])

    def land(self, queue: list[outbox.Waiting]) -> None:
        if queue:
            row = queue.pop(0)
            self.log.append(row.topic, row.key or "", row.value, row.headers)

    def do_producer(self) -> None:
        w = self.worker()
        if self.rng.random() < 0.6:
            self.ghosts.append(w.net)
        w.net, w.cursor = [], {}

    def do_kill(self) -> None:
        w = self.worker()
        self.rebalance()
        self.restart(w)

    def do_rebalance(self) -> None:
        self.rebalance()

    def do_skew(self) -> None:
        self.worker().skew = self.rng.randint(-120, 120)

    # ---- the database
    def do_wipe(self) -> None:
        with self.store.writing() as tx:
            wipe(tx)
        for w in self.workers:
            self.restart(w)

    def do_copy(self) -> None:
        self.store.close()
        with self.store.writing() as tx:
            tx.exec_driver_sql("SELECT 1")
        self.store.close()
        self.backup = self.folder / f"{self.path.stem}.copy"
        shutil.copy(self.path, self.backup)

    def do_restore(self) -> None:
        if self.backup is None:
            return
        self.store.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        shutil.copy(self.backup, self.path)
        for w in self.workers:
            self.restart(w)

    def do_swap(self) -> None:
        """The rows are rebuilt beside those that serve; nobody is told, and all are in the middle of something."""
        with beside(self.store.url) as shadow:
            refold = Refold(shadow.store, shadow.begin())
            shadow.keep_crashes()
            refold.begin(dict.fromkeys(SPOTS, "epoch"), dict.fromkeys(SPOTS, 0))
            until = {s: self.rng.randint(0, len(p)) for s, p in self.log.parts.items()}
            until[Spot(DEAD_LETTERS, 0)] = len(self.log.parts[Spot(DEAD_LETTERS, 0)])
            self._refold(refold, until)
            shadow.complete()
            with fenced(shadow.live) as fence:
                self._refold(refold, {s: max(until[s], fence.at[s].next if s in fence.at else 0) for s in SPOTS})
                fence.replace(FOLDED)

    def _refold(self, refold: Refold, until: dict[Spot, int]) -> None:
        for spot in SPOTS:
            refold.take(spot, self.log.parts[spot][refold.at[spot][0] : until[spot]])
            refold.heard_of_the_dead()
        refold.settle()

    # ---- people and programs
    def recipient(self, user: str, address: str) -> None:
        body = f'{{"addresses":{{"email":"{address}","telegram":"@{user}"}}}}'.encode()
        e = RecipientChanged(
            event_id=self.log.new_id(), producer="", occurred_at=0, recipient_id=user, version=1, body=body
        )
        self.log.say(RECIPIENTS, user, e)

    def do_request(self) -> None:
        users, policy = tuple(self.rng.sample(USERS, self.rng.randint(1, 3))), self.rng.choice(POLICIES)
        lanes = tuple(Lane(c, c, "recipient", u, after) for u in users for c, after in STEPS)
        if self.rng.random() < 0.4:
            return self._direct(users, lanes)
        alert = self.rng.choice(ALERTS)
        run, number = self.runs.get(alert, (-1, 0))
        if run < 0 or self.rng.random() < 0.15:
            e = AlertStarted(
                event_id=self.log.new_id(), producer="", occurred_at=0, alert=alert, shard=0, shards=1, instance=""
            )
            spot = Spot(NOTICE_REQUESTS, partition_of(alert, 2))
            run, number = len(self.log.parts[spot]), 0
            self.log.say(NOTICE_REQUESTS, alert, e)
        stale = self.rng.random() < 0.2
        number += self.rng.choice((-1, 2)) if stale else 1
        if not stale:
            self.runs[alert] = (run, number)
        effects = tuple(
            Effect(
                self.rng.choice(("raise", "raise", "update", "resolve")), self.rng.choice("xy"),
                f"{alert}/{run}/{number}/{i}", 0, "c1", None, None, self.rng.choice(("info", "error")), lanes, policy,
                (), None, b'{"notice":{"title":"t"}}',
            )
            for i in range(self.rng.randint(1, 3))
        )  # fmt: skip
        self._commit(alert, run, number, effects)
        return None

    def end_all(self) -> None:
        """Every condition is over."""
        for alert, (run, number) in self.runs.items():
            effects = tuple(
                Effect("resolve", key, f"{alert}/end/{key}", 0, "c1", None, None, "info", (), "", (), None,
                       b'{"notice":{}}')
                for key in "xy"
            )  # fmt: skip
            self._commit(alert, run, number + 1, effects)
        self._direct_end()

    def _commit(self, alert: str, run: int, number: int, effects: tuple[Effect, ...]) -> None:
        e = AlertCommitted(
            event_id=self.log.new_id(), producer="", occurred_at=0, alert=alert, shard=0, run=run, number=number,
            more=False, effects=effects, positions=(), now=0, state_changed=False, state=b"",
        )  # fmt: skip
        self._say(NOTICE_REQUESTS, alert, e)

    def _direct_end(self) -> None:
        e = NoticeResolved(event_id=self.log.new_id(), producer="", occurred_at=0, subject="shop", key="k")
        self._say(NOTICE_REQUESTS, "shop", e)

    def _direct(self, users: tuple[str, ...], lanes: tuple[Lane, ...]) -> None:
        key = self.rng.choice((None, "k"))
        if key and self.rng.random() < 0.4:
            return self._direct_end()
        e = NoticeRequested(
            event_id=self.log.new_id(), producer="", occurred_at=0, subject="shop", key=key,
            request_key=self.log.new_id(), users=users, lanes=lanes, forward="", severity="info",
            entity_type=None, entity_id=None, body=b'{"title":"t"}',
        )  # fmt: skip
        self._say(NOTICE_REQUESTS, "shop", e)
        return None

    def do_mark(self) -> None:
        part = self.log.parts[Spot(NOTICES, self.rng.randint(0, 1))]
        raised = [i.event for i in part if isinstance(i, Record) and isinstance(i.event, NoticeRaised)][-6:]
        if not raised:
            return
        e = self.rng.choice(raised)
        how = self.rng.choice(("read", "read", "unread", "archived", "unarchived", "seen", "snoozed", "snoozed"))
        everything = self.rng.random() < 0.1
        self._say(
            NOTICES,
            e.user,
            NoticeMarked(
                event_id=self.log.new_id(), producer="", occurred_at=0, user=e.user, cmd=self.log.new_id(), mark=how,
                ids=() if everything else (e.notice_id,), up_to=len(part) if everything else None,
                until=self.log.now + self.rng.randint(10, 200) if how == "snoozed" else None,
            ),
        )  # fmt: skip

    def _mark_all(self, user: str, mark: str) -> None:
        e = NoticeMarked(
            event_id=self.log.new_id(), producer="", occurred_at=0, user=user, cmd=self.log.new_id(), mark=mark,
            ids=(), up_to=10**9, until=None,
        )  # fmt: skip
        self._say(NOTICES, user, e)

    def do_prefs(self) -> None:
        user, wish = self.rng.choice(USERS), self.rng.choice(WISHES)
        body = f'{{"channels":{{"email":{wish}}}}}'.encode()
        e = PreferencesChanged(
            event_id=self.log.new_id(), producer="", occurred_at=0, user=user, cmd=self.log.new_id(), body=body
        )
        self._say(NOTICES, user, e)

    def do_silence(self) -> None:
        """Somebody mutes an alert or a person for a while."""
        alert = self.rng.choice((None, *ALERTS))
        e = SilenceSet(
            event_id=self.log.new_id(), producer="", occurred_at=0, silence_id=self.log.new_id(), by="x", alert=alert,
            entity_type=None, entity_id=None, user=None if alert else self.rng.choice(USERS),
            until=self.log.now + self.rng.randint(100, 900), body=b"{}",
        )  # fmt: skip
        self.log.say(CONTROLS, e.silence_id, e)

    def do_post(self, *, everything: bool = False) -> None:
        """The sender is told what its server said; once in a while it says it twice."""
        parts = [p for s, p in self.log.parts.items() if s.topic == DELIVERIES]
        items = [i.event for p in parts for i in p if isinstance(i, Record)]
        done = {e.delivery_id for e in items if isinstance(e, DeliverySent | DeliveryFailed)}
        asked = {e.delivery_id: e for e in items if isinstance(e, DeliveryRequested)}
        left = [e for i, e in asked.items() if i not in done]
        for e in left if everything else left[:1]:
            common = {"event_id": self.log.new_id(), "producer": "", "occurred_at": 0, "delivery_id": e.delivery_id}
            about = {"user": e.user, "notice_id": e.notice_id, "attempt": 1, "body": b"{}"}
            sent = self.rng.random() < 0.7
            said: Event = (
                DeliverySent(**common, **about) if sent else DeliveryFailed(**common, **about, reason="rejected")  # type: ignore[arg-type]
            )
            self._say(DELIVERIES, e.user, said)

    def _say(self, topic: str, key: str, event: Event) -> None:
        self.log.say(topic, key, event)
        self.keys.append(lambda: self.log.say(topic, key, event))

    def do_again(self) -> None:
        """A producer that got no answer says it again."""
        if self.keys:
            self.rng.choice(self.keys[-8:])()

    def do_poison(self) -> None:
        topic = self.rng.choice((NOTICE_REQUESTS, NOTICES))
        good = encode(
            RecipientChanged(
                event_id=self.log.new_id(), producer="", occurred_at=0, recipient_id="x", version=1, body=b"{}"
            )
        )
        self.log.append(topic, self.rng.choice(USERS), self.rng.choice((b"garbage", good)))

    def do_wait(self) -> None:
        self.log.now += self.rng.randint(0, 60)

    # ---- healing
    def quiesce(self) -> None:
        """No faults, true ownership, until nothing moves."""
        self.group = {s: self.workers[i % 2] for i, s in enumerate(SPOTS)}
        for w in self.workers:
            w.watch()
            w.sync()
        while any(self.ghosts):
            self.land(next(g for g in self.ghosts if g))
        for turn in range(400):
            self.do_post(everything=True)
            if turn == END_ALL_AFTER:
                self.end_all()
            if turn == READ_ALL_AFTER:  # what is repeated for ever comes to rest when it is read
                for user in USERS:
                    self._mark_all(user, "read")
            for w in self.workers:
                self._all_of(w)
            if not self.moving():
                return
            self.log.now += 30 if turn < READ_ALL_AFTER else 10_000
        raise AssertionError(f"never comes to rest: {self.moving()}")

    def _all_of(self, w: Worker) -> None:
        """Everything that a worker can do now."""
        for spot in sorted(w.at):
            for _ in range(400):
                if spot not in w.at or w.at[spot][0] >= len(self.log.parts[spot]):
                    break
                w.fetch(spot)
                before = w.at[spot]
                w.commit(spot)
                if w.at.get(spot) == before:
                    break
            if spot in w.at:
                w.sweep(spot)
                w.relay(spot)
        w.clock()
        while w.net:
            self.land(w.net)

    def moving(self) -> str:
        with self.store.reading() as tx:
            at = next_offsets(tx)
            behind = [s for s in SPOTS if at.get(s, 0) != len(self.log.parts[s])]
            left = tx.execute(select(outbox_table.c.event_id)).all()
            waiting = tx.execute(select(steps).where(steps.c.state.in_(UNSETTLED))).all()
        return f"{behind} {left} {waiting}" if behind or left or waiting else ""
