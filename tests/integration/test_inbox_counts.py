"""Random marks, snoozes, digests and repeats over the real fold: what is pushed, the tallies and a fresh count always
equal a model that was written apart, on both databases; and so do the pages of every state.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from api.live.fan_out import Watcher
from api.live.frames import Batch, Frame
from api.live.inbox import UserInbox
from projections.forwarding import due_id
from projections.notice import STATES
from projections.sql import outbox, positions
from projections.sql.commit import commit
from projections.sql.fold import Decider
from projections.sql.folds import fold_of
from projections.sql.store import Store, wipe
from projections.sql.views import inboxes, notices
from projections.sql.views.notices import Cursor
from projections.sql.waits import due
from topics.catalogue import NOTICES
from topics.codec import decode, encode
from topics.events import (
    Due,
    Event,
    Lane,
    NoticeEnded,
    NoticeMarked,
    NoticeRaised,
    NoticeUpdated,
    PreferencesChanged,
    Record,
    TopicOpened,
)
from topics.fetch import Spot

BOX = Spot(NOTICES, 0)
USERS = ("ann", "bob")
MARKS = ("seen", "read", "unread", "archived", "unarchived", "snoozed")
MARKED = "coalesce(seen_at, read_at, archived_at, snoozed_until) IS NOT NULL"
POLICIES = (
    "",
    '{"digest":0.1}',
    '{"throttle":{"max":1,"per":0.3},"tell_resolved":true}',
    '{"repeat":0.2,"tell_resolved":true}',
)


@dataclass
class Mine:
    """A notice as its user knows it."""

    raised: int
    seen: bool = False
    read: bool = False
    archived: bool = False
    snoozed: int | None = None

    @property
    def state(self) -> str:
        if self.archived:
            return "archived"
        if self.snoozed is not None:
            return "snoozed"
        return "read" if self.read else "unread"


class Model:
    """The rules of an inbox in the plainest words, without forwards."""

    def __init__(self) -> None:
        self.of: dict[str, dict[str, Mine]] = {u: {} for u in USERS}
        self.taken: set[tuple[str, str]] = set()

    def take(self, record: Record) -> None:
        e = record.event
        if isinstance(e, NoticeRaised) and e.inbox:
            self.of[e.user].setdefault(e.notice_id, Mine(record.offset))
        elif isinstance(e, NoticeMarked) and (e.user, e.cmd) not in self.taken:
            self.taken.add((e.user, e.cmd))
            mine = self.of[e.user]
            if e.up_to is None:
                meant = [mine[i] for i in e.ids if i in mine]
            else:
                meant = [n for n in mine.values() if n.raised < e.up_to and not (e.mark == "snoozed" and n.archived)]
            for notice in meant:
                self.mark(notice, e)
        elif isinstance(e, Due) and e.what == "snooze":
            found = self.of[e.user].get(e.notice_id)
            if found and found.snoozed == e.due_at and record.timestamp >= e.due_at:
                found.snoozed, found.read, found.seen = None, False, False

    def mark(self, notice: Mine, e: NoticeMarked) -> None:
        match e.mark:
            case "seen":
                notice.seen = True
            case "read":
                notice.seen = notice.read = True
            case "unread":
                notice.read = False
            case "archived":
                notice.seen = notice.archived = True
            case "unarchived":
                notice.archived = False
            case "snoozed":
                notice.snoozed = e.until

    def counts(self, user: str) -> dict[str, int]:
        here = [n for n in self.of[user].values() if n.state in ("unread", "read")]
        return {"unread": sum(not n.read for n in here), "unseen": sum(not n.seen for n in here)}

    def page(self, user: str, state: str) -> list[str]:
        states = {"open": ("unread", "read"), "all": ("unread", "read", "snoozed", "archived")}.get(state, (state,))
        mine = self.of[user].items()
        return [i for i, n in sorted(mine, key=lambda item: item[1].raised, reverse=True) if n.state in states]


class Life:
    """One partition of `notices`, the worker's rows, two gateways' inboxes, and the model."""

    def __init__(self, store: Store, seed: int) -> None:
        self.store, self.dice, self.now, self.made = store, random.Random(seed), 1_000, 0
        with store.writing() as tx:
            self.rows_of = wipe(tx)
            at = positions.at_assignment(tx, BOX, "epoch")
        self.at = (at.next, at.done)
        self.log: list[Record] = []
        self.said: set[str] = set()
        self.ids: dict[str, list[str]] = {u: [] for u in USERS}
        self.commands: list[NoticeMarked] = []
        self.model = Model()
        self.frames: dict[str, Reader] = {u: Reader() for u in USERS}
        self.live: dict[str, UserInbox] = {}
        self.say("", TopicOpened(**self.by(), topic=NOTICES, partition=0, partitions=1))
        for user in USERS:
            self.open(user)

    # ---- what is said
    def by(self) -> dict[str, Any]:
        self.made += 1
        return {"event_id": f"e{self.made}", "producer": "", "occurred_at": 0}

    def say(self, key: str, event: Event) -> None:
        record = Record(*BOX, len(self.log), self.now, key, event, encode(event))
        self.log.append(record)
        self.model.take(record)
        for user, inbox in self.live.items():
            if user == key:
                inbox.take(record)
                assert inbox.counts == self.model.counts(user), event
                self.pushed(user)

    def pushed(self, user: str) -> None:
        """Counts in the newest frame hold for its position: the model's own."""
        if frames := self.frames[user]:
            assert payload(frames[-1].message)["counts"] == self.model.counts(user)
            assert not any(b'"digest' in f.message for f in frames)
            frames.clear()

    def step(self) -> None:
        self.now += self.dice.choice((0, 1, 10, 60))
        user = self.dice.choice(USERS)
        kinds = {"raise": 5, "mark": 8, "clock": 4} | dict.fromkeys(
            ("again", "end", "update", "wrong", "prefs", "open"), 1
        )
        getattr(self, f"do_{self.dice.choices(list(kinds), list(kinds.values()))[0]}")(user)

    def do_raise(self, user: str) -> None:
        if self.ids[user] and self.dice.random() < 0.1:
            notice_id = self.dice.choice(self.ids[user])  # said twice
        else:
            self.made += 1
            notice_id = f"n{self.dice.randrange(1 << 30):x}-{self.made}"
            self.ids[user].append(notice_id)
        lanes = (Lane("email", "email", "address", "x@example.test", self.dice.choice((0, 50))),)
        event = NoticeRaised(
            **self.by(), notice_id=notice_id, user=user, inbox=True, kind="condition", alert="a", config_id="c",
            key="k", entity_type=None, entity_id=None, severity="info", lanes=self.dice.choice(((), lanes)),
            forward=self.dice.choice(POLICIES), body=b'{"title":"t"}',
        )  # fmt: skip
        self.say(user, event)

    def do_mark(self, user: str) -> None:
        mark, everything = self.dice.choice(MARKS), self.dice.random() < 0.25
        some = self.dice.sample(self.ids[user], min(len(self.ids[user]), self.dice.randrange(4)))
        digests = self.of_kind(user, "digest")[:1]  # a digest's id marks nothing
        event = NoticeMarked(
            **self.by(), user=user, cmd=f"c{self.made}", mark=mark,
            ids=() if everything else (*some, *digests, "unknown"),
            up_to=self.dice.randrange(len(self.log) + 1) if everything else None,
            until=self.now + self.dice.choice((-5, 20, 100)) if mark == "snoozed" else None,
        )  # fmt: skip
        self.commands.append(event)
        self.say(user, event)

    def do_again(self, _user: str) -> None:
        if self.commands:
            event = self.dice.choice(self.commands[-5:])
            self.say(event.user, event)

    def do_end(self, user: str) -> None:
        if self.ids[user]:
            self.say(user, NoticeEnded(**self.by(), notice_id=self.dice.choice(self.ids[user]), user=user, body=b"{}"))

    def do_update(self, user: str) -> None:
        if self.ids[user]:
            event = NoticeUpdated(
                **self.by(), notice_id=self.dice.choice(self.ids[user]), user=user, severity="error",
                cause_offset=len(self.log), cause_index=0, push=False, body=b'{"title":"u"}',
            )  # fmt: skip
            self.say(user, event)

    def do_clock(self, _user: str) -> None:
        self.fold()
        with self.store.reading() as tx:
            waits = due(tx, [0], self.now + self.dice.choice((0, 0, 40)), 5)
        for w in waits:
            event = Due(
                **self.by() | {"event_id": due_id(w.user, w.notice_id, w.step)}, user=w.user, notice_id=w.notice_id,
                what=w.step.what, step=w.step.step, number=w.step.number, due_at=w.step.due_at,
            )  # fmt: skip
            self.say(w.user, event)

    def do_wrong(self, user: str) -> None:
        """A snooze's Due under a number that is not the current one."""
        if self.ids[user]:
            event = Due(
                **self.by(), user=user, notice_id=self.dice.choice(self.ids[user]), what="snooze", step="",
                number=99, due_at=self.now,
            )  # fmt: skip
            self.say(user, event)

    def do_prefs(self, user: str) -> None:
        body = self.dice.choice((b"{}", b'{"channels":{"email":{"digest":0.2}}}'))
        self.say(user, PreferencesChanged(**self.by(), user=user, cmd=f"p{self.made}", body=body))

    def do_open(self, user: str) -> None:
        """The last watcher goes; another comes: the inbox is loaded from the rows, then from the log."""
        self.fold()
        self.open(user)

    def open(self, user: str) -> None:
        with self.store.reading() as tx:
            found = inboxes.load(tx, {user: 0})[user]
        inbox = self.live[user] = UserInbox(user, 0, str)
        inbox.start(found.box)
        for record in self.log[found.next :]:
            if record.key == user:
                inbox.fold(record)
        assert inbox.counts == self.model.counts(user)
        watcher = Watcher(self.frames[user], None, 10)
        watcher.held = None
        inbox.watchers.add(watcher)
        inbox.drop_texts(self.dice.choice((0, found.next)))

    # ---- the worker
    def fold(self) -> None:
        """Commit what is on the log in batches of any size; what it decides goes to the log."""
        while self.at[0] < len(self.log):
            batch = self.log[self.at[0] : self.at[0] + self.dice.choice((1, 2, 7, 40))]
            done = commit(
                self.store, fold_of(NOTICES), BOX, batch, self.at, self.rows_of, decider=Decider("worker", self.now)
            )
            self.at = (done.next, done.done)
            with self.store.reading() as tx:
                self.compare(tx)
                answers = [r for r in outbox.lane(tx, BOX, (-1, -1), 9_999) if r.topic == NOTICES]
            for row in answers:
                if row.event_id not in self.said:
                    self.said.add(row.event_id)
                    self.say(row.key or "", decode(row.value))

    def compare(self, tx: Connection) -> None:
        """Tallies and a fresh count of the rows; with nothing left to fold the model's, too."""
        for user in USERS:
            tallies = notices.counts(tx, user)
            assert tallies == fresh(tx, user)
            if self.at[0] == len(self.log):
                assert tallies == self.model.counts(user)
                for state in STATES:
                    assert self.pages(tx, user, state) == self.model.page(user, state)
                inbox = self.live[user]
                assert [n.notice_id for n in inbox.newest(9)] == self.model.page(user, "open")[:9]
                assert [n.notice_id for n in inbox.changed_since(0)] == self.model.page(user, "all")[::-1]

    def pages(self, tx: Connection, user: str, state: str) -> list[str]:
        found: list[str] = []
        before: Cursor | None = None
        while page := notices.page(tx, user, state, before=before, limit=3, words=None):
            found += [n.notice_id for n in page]
            before = Cursor(page[-1].raised_offset, page[-1].notice_id)
        return found

    def of_kind(self, user: str, kind: str, which: str = "TRUE") -> list[str]:
        query = text(f"SELECT notice_id FROM notices WHERE user_id = :user AND kind = :kind AND {which} ORDER BY 1")  # noqa: S608
        with self.store.reading() as tx:
            return [r.notice_id for r in tx.execute(query, {"user": user, "kind": kind})]


def fresh(tx: Connection, user: str) -> dict[str, int]:
    here = "FROM notices WHERE user_id = :u AND inbox AND archived_at IS NULL AND snoozed_until IS NULL"
    unread, unseen = (text(f"SELECT count(*) {here} AND {c} IS NULL") for c in ("read_at", "seen_at"))
    return {
        "unread": tx.execute(unread, {"u": user}).scalar_one(),
        "unseen": tx.execute(unseen, {"u": user}).scalar_one(),
    }


class Reader(list[Frame]):
    """Keeps what is written."""

    def write(self, frame: Frame, *, at_once: bool = False) -> None:
        self.append(frame)

    def deliver(self, batch: Batch) -> None:
        self.extend(batch.frames)

    def cut_off(self) -> None:
        raise AssertionError("nothing is held here")


def payload(frame: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(frame[frame.index(b"{") :])
    return found


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = f"sqlite:///{tmp_path}/t.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    made = Store(url)
    made.prepare()
    yield made
    made.close()


@pytest.mark.parametrize("seed", range(4))
def test_counts_pushed_kept_and_fresh_are_always_those_of_the_model(store: Store, seed: int) -> None:
    life = Life(store, seed)
    for _ in range(200):
        life.step()
    life.fold()
    assert any(life.of_kind(u, "digest") for u in USERS)
    assert not any(life.of_kind(u, "digest", MARKED) for u in USERS)
    for user in USERS:
        life.open(user)
        assert {i for _, i in life.live[user].box.notices} == set(life.model.of[user])
