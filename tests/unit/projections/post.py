"""One installation without a broker: logs in lists, the real commits over SQLite, a clock that the test turns.

What the outbox holds lands on its log when the test lets it: so questions can be asked in one batch, or be in flight.
"""

from __future__ import annotations

import json
import random
from typing import Any

from sqlalchemy import select

from projections.forwarding import due_id
from projections.sql import outbox, positions
from projections.sql.commit import commit
from projections.sql.fold import Decider
from projections.sql.folds import fold_of
from projections.sql.schema import metadata, steps
from projections.sql.store import Store
from projections.sql.waits import due
from topics.catalogue import CONTROLS, DEAD_LETTERS, DELIVERIES, NOTICES, RECIPIENTS
from topics.codec import decode, encode
from topics.events import (
    Decided,
    DeliveryCancelled,
    DeliveryFailed,
    DeliveryRequested,
    DeliverySent,
    Due,
    Event,
    Lane,
    NoticeEnded,
    NoticeMarked,
    NoticeRaised,
    PreferencesChanged,
    RecipientChanged,
    Record,
    SilenceEnded,
    SilenceSet,
)
from topics.fetch import Item, Spot

BOX, OUT, PEOPLE, CONTROL = Spot(NOTICES, 0), Spot(DELIVERIES, 0), Spot(RECIPIENTS, 0), Spot(CONTROLS, 0)
SPOTS = (PEOPLE, CONTROL, BOX, OUT)
FOLDED = ("notices", "steps", "early", "marks", "preferences", "tallies", "delivery_requests", "delivery_results")
T0 = 1_700_000_000_000  # Tuesday 2023-11-14 22:13:20 UTC
MINUTE, HOUR = 60_000, 3_600_000


class Rows:
    """A database of the folds, and where it was folded to."""

    def __init__(self, url: str) -> None:
        self.store = Store(url)
        self.rows_of = self.store.prepare()
        with self.store.writing() as tx:
            self.at = {s: positions.at_assignment(tx, s, "epoch").next for s in SPOTS}

    def commit(self, spot: Spot, batch: list[Item], now: int) -> None:
        """Fold a batch, or the parts of it that are cut."""
        while left := [i for i in batch if i.offset >= self.at[spot]]:
            at, who = (self.at[spot], 0), Decider("test", now)
            self.at[spot] = commit(self.store, fold_of(spot.topic), spot, left, at, self.rows_of, decider=who).next

    def dump(self) -> dict[str, list[str]]:
        """Every row that the folds of these topics write; of marks and preferences not the batch's last offset."""
        with self.store.reading() as tx:
            return {
                t: sorted(
                    repr({k: v for k, v in r._mapping.items() if (t, k) != ("preferences", "offset")})
                    for r in tx.execute(select(metadata.tables[t]))
                )
                for t in FOLDED
            }

    def all(self, query: Any) -> list[tuple[Any, ...]]:
        with self.store.reading() as tx:
            return [tuple(r) for r in tx.execute(query)]


class Post:
    """The logs, the time, and the rows. `batch`: how many records one transaction folds."""

    def __init__(self, url: str, batch: int = 500) -> None:
        self.rows, self.batch = Rows(url), batch
        self.now, self.made = T0, 0
        self.logs: dict[Spot, list[Item]] = {s: [] for s in SPOTS}
        self.landed: set[tuple[str, int]] = set()

    # ---- what people and programs say
    def say(self, spot: Spot, event: Event, key: str = "k") -> Record:
        log = self.logs[spot]
        record = Record(*spot, len(log), self.now, key, event, encode(event))
        log.append(record)
        return record

    def common(self) -> dict[str, Any]:
        self.made += 1
        return {"event_id": f"id-{self.made}", "producer": "", "occurred_at": 0}

    def recipient(self, user: str = "ann", **more: Any) -> None:
        body = {"name": user, "addresses": {"email": f"{user}@example.test", "telegram": f"@{user}"}, **more}
        self.say(
            PEOPLE,
            RecipientChanged(
                **self.common(), recipient_id=user, version=self.made, body=json.dumps(body).encode("ascii")
            ),
            user,
        )

    def raised(self, notice_id: str, forward: Any = "", lanes: tuple[Lane, ...] | None = None, **more: Any) -> None:
        """A condition of the alert `cpu` for ann, forwarded to her mail at once."""
        given: dict[str, Any] = {
            "user": "ann", "inbox": True, "kind": "condition", "alert": "cpu", "config_id": "c1", "key": None,
            "entity_type": "vm", "entity_id": notice_id, "severity": "info",
            "lanes": (lane(),) if lanes is None else lanes,
            "forward": json.dumps(forward) if isinstance(forward, dict) else forward,
            "body": json.dumps({"title": f"title {notice_id}", "text": f"text {notice_id}"}).encode(),
        } | more  # fmt: skip
        self.say(BOX, NoticeRaised(**self.common(), notice_id=notice_id, **given))

    def mark(self, how: str, *ids: str, user: str = "ann", **more: Any) -> None:
        given: dict[str, Any] = {"cmd": f"mark-{self.made}", "up_to": None, "until": None} | more
        self.say(BOX, NoticeMarked(**self.common(), user=user, mark=how, ids=ids, **given))

    def ended(self, notice_id: str, user: str = "ann") -> None:
        self.say(BOX, NoticeEnded(**self.common(), notice_id=notice_id, user=user, body=b""))

    def prefers(self, wanted: dict[str, Any], user: str = "ann") -> None:
        body = json.dumps(wanted).encode()
        self.say(BOX, PreferencesChanged(**self.common(), user=user, cmd=f"cmd-{self.made}", body=body))

    def silence(self, name: str, for_ms: int, **what: Any) -> None:
        given: dict[str, Any] = {"alert": None, "entity_type": None, "entity_id": None, "user": None} | what
        until = self.now + for_ms
        self.say(
            CONTROL, SilenceSet(**self.common(), silence_id=name, by="ops", until=until, body=b"{}", **given), name
        )

    def silence_ended(self, name: str) -> None:
        self.say(CONTROL, SilenceEnded(**self.common(), silence_id=name, by="ops"), name)

    def sent(self, request: DeliveryRequested) -> None:
        self.say(OUT, DeliverySent(**self._result(request), attempt=1, body=b"{}"))

    def failed(self, request: DeliveryRequested) -> None:
        self.say(OUT, DeliveryFailed(**self._result(request), reason="rejected", body=b"{}", attempt=1))

    def _result(self, r: DeliveryRequested) -> dict[str, Any]:
        return {**self.common(), "delivery_id": r.delivery_id, "user": r.user, "notice_id": r.notice_id}

    # ---- what runs
    def fold(self) -> None:
        """Everything that is on the logs, deliveries last."""
        for spot in SPOTS:
            while left := self.logs[spot][self.rows.at[spot] :]:
                self.rows.commit(spot, left[: self.batch], self.now)

    def land(self) -> int:
        """What waits in the outbox stands on the log; how much."""
        with self.rows.store.reading() as tx:
            waiting = [r for s in SPOTS for r in outbox.lane(tx, s, (-1, -1), 99_999)]
        for row in waiting:
            if row.topic != DEAD_LETTERS:
                self.say(BOX if row.topic == NOTICES else OUT, decode(row.value), row.key or "")
        new = [r for r in waiting if r.topic != DEAD_LETTERS]
        return len(new)

    def tick(self) -> int:
        """What is due is said; how much."""
        with self.rows.store.reading() as tx:
            waits = due(tx, [0], self.now, 99_999)
        for w in waits:
            name = due_id(w.user, w.notice_id, w.step)
            self.say(
                BOX,
                Due(
                    event_id=name, producer="clock", occurred_at=0, user=w.user, notice_id=w.notice_id,
                    what=w.step.what, step=w.step.step, number=w.step.number, due_at=w.step.due_at,
                ),
            )  # fmt: skip
        return len(waits)

    def run(self, ms: int = 0) -> Post:
        """Until nothing moves, now; then time goes on, from each thing that is due to the next."""
        end = self.now + ms
        while True:
            for _ in range(200):
                self.fold()
                if not self.land() + self.tick():
                    break
            else:
                raise AssertionError("never comes to rest")
            with self.rows.store.reading() as tx:
                ahead = tx.execute(select(steps.c.due_at).where(steps.c.state == "waiting")).scalars().all()
            later = min((t for t in ahead if t <= end), default=None)
            if later is None:
                self.now = end
                return self
            self.now = max(self.now, later)

    # ---- what came of it
    def events(self, kind: type[Any]) -> list[Any]:
        """The events of a kind on all logs, each once."""
        found: dict[str, Any] = {}
        for log in self.logs.values():
            for r in log:
                if isinstance(r, Record) and isinstance(r.event, kind):
                    found.setdefault(r.event.event_id, r.event)
        return list(found.values())

    @property
    def requests(self) -> list[DeliveryRequested]:
        return self.events(DeliveryRequested)

    @property
    def recalls(self) -> list[DeliveryCancelled]:
        return self.events(DeliveryCancelled)

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(r.body) for r in self.requests]

    @property
    def titles(self) -> list[str]:
        return [m["title"] for m in self.messages]

    @property
    def answers(self) -> list[tuple[str, str, str, str]]:
        """(notice, what, answer, reason) of each decision, in log order; of a digest the notice is `digest`."""
        return [
            ("digest" if d.what == "digest" else d.notice_id, d.what, d.answer, d.reason) for d in self.events(Decided)
        ]

    def looked(self, index: int = -1) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.events(Decided)[index].body)["looked_at"]
        return found

    def told_at(self, kind: str = "") -> list[int]:
        """When the questions were asked whose answers were deliveries."""
        return [
            json.loads(d.body)["looked_at"]["asked_at"]
            for d in self.events(Decided)
            if d.answer == "deliver" and kind in ("", d.what)
        ]

    def steps(self, *columns: str) -> list[tuple[Any, ...]]:
        named = [steps.c[c] for c in columns or ("notice_id", "what", "step", "state", "reason")]
        query = select(*named).where(steps.c.what != "digest").order_by(steps.c.notice_id, steps.c.what, steps.c.step)
        return self.rows.all(query)

    def again(self, url: str, cuts: random.Random | int) -> Rows:
        """Other rows of the same logs, folded in batches of this size, or cut at random."""
        made = Rows(url)
        for spot in SPOTS:
            while left := self.logs[spot][made.at[spot] :]:
                size = cuts if isinstance(cuts, int) else cuts.randint(1, 12)
                made.commit(spot, left[:size], self.now)
        return made


def lane(
    channel: str = "email", after_ms: int = 0, value: str = "ann", step: str = "", kind: str = "recipient"
) -> Lane:
    return Lane(step or channel, channel, kind, value, after_ms)
