"""The rows behind the fold of `notices`: loads what a batch touches, saves what changed, collects what is asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, or_, select, tuple_, update

from projections.forwarding import Question, decide, decided_id
from projections.notice import Notice, Step
from projections.notices import Box, apply
from projections.outgoing import Outgoing
from projections.sql.fold import Decider
from projections.sql.outbox import waiting_ids
from projections.sql.schema import early, marks, notices, preferences, recipients, steps
from projections.sql.store import insert_new, upsert
from topics.catalogue import NOTICES
from topics.codec import decode, encode
from topics.events import (
    Decided,
    Due,
    NoticeEnded,
    NoticeMarked,
    NoticeRaised,
    NoticeUpdated,
    PreferencesChanged,
    Record,
)
from topics.fetch import Spot

Key = tuple[str, str]
SLICE = 400
FLAGS = ("changed_offset", "seen_at", "read_at", "archived_at", "snoozed_until", "hold", "ended_at", "stopped")


_KEYS: Any = bindparam("keys", expanding=True)
_NOTICES = select(notices).where(tuple_(notices.c.user_id, notices.c.notice_id).in_(_KEYS))
_STEPS = select(steps).where(tuple_(steps.c.user_id, steps.c.notice_id).in_(_KEYS))
_EARLY = select(early).where(tuple_(early.c.user_id, early.c.notice_id).in_(_KEYS)).order_by(early.c.offset)
_COMMANDS = select(marks).where(tuple_(marks.c.user_id, marks.c.cmd).in_(_KEYS))
_PREFERENCES = select(preferences).where(preferences.c.user_id.in_(bindparam("users", expanding=True)))
_ONE = (notices.c.user_id == bindparam("b_user"), notices.c.notice_id == bindparam("b_notice"))
_FLAGGED = update(notices).where(*_ONE).values({f: bindparam(f) for f in FLAGS})
_CHANGED = (
    update(notices)
    .where(*_ONE)
    .values({f: bindparam(f) for f in ("severity", "body", "version_offset", "version_index")})
)


@dataclass(slots=True)
class State:
    """A box with what was there when it was loaded."""

    box: Box
    known: set[Key] = field(default_factory=set)
    versions: dict[Key, tuple[int, int]] = field(default_factory=dict)
    early_before: dict[Key, list[Record]] = field(default_factory=dict)
    commands_before: set[Key] = field(default_factory=set)
    preferences_before: dict[str, str] = field(default_factory=dict)
    offset: int = 0


class NoticesFold:
    """TopicFold of `notices`."""

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """The notices, steps, early records, commands and preferences that these records touch."""
        keys: set[Key] = set()
        commands: set[Key] = set()
        users: set[str] = set()
        for record in records:
            match record.event:
                case NoticeMarked() as e:
                    commands.add((e.user, e.cmd))
                    keys.update((e.user, i) for i in e.ids)
                    if e.up_to is not None:
                        keys.update(_unmarked(tx, e))
                case PreferencesChanged() as e:
                    commands.add((e.user, e.cmd))
                    users.add(e.user)
                case NoticeRaised() | NoticeUpdated() | NoticeEnded() | Decided() as e:
                    keys.add((e.user, e.notice_id))
                case Due() as e:
                    keys.add((e.user, e.notice_id))
                    users.add(e.user)
        state = load_notices(tx, keys)
        for part in _slices(commands):
            found = tx.execute(_COMMANDS, {"keys": part})
            state.box.commands.update({(r.user_id, r.cmd): (r.offset, r.at) for r in found})
        state.commands_before = set(state.box.commands)
        for names in _slices(users):
            found = tx.execute(_PREFERENCES, {"users": names})
            state.box.preferences.update({r.user_id: r.body for r in found})
        state.preferences_before = dict(state.box.preferences)
        return state

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """See projections.notices."""
        state.offset = record.offset
        return apply(state.box, record)[0]

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """Insert what is new, update flags of the rest, replace steps."""
        touched = [n for k in sorted(state.box.touched) if (n := state.box.notices.get(k))]
        new = [n for n in touched if (n.user, n.notice_id) not in state.known]
        old = [n for n in touched if (n.user, n.notice_id) in state.known]
        if new:
            tx.execute(insert(notices), [_row(n, spot.partition) for n in new])
        if old:
            tx.execute(
                _FLAGGED,
                [{"b_user": o.user, "b_notice": o.notice_id, **{f: getattr(o, f) for f in FLAGS}} for o in old],
            )
            changed = [o for o in old if o.version != state.versions[o.user, o.notice_id]]
            if changed:
                tx.execute(
                    _CHANGED,
                    [
                        {
                            "b_user": o.user,
                            "b_notice": o.notice_id,
                            "severity": o.severity,
                            "body": o.body,
                            "version_offset": o.version[0],
                            "version_index": o.version[1],
                        }
                        for o in changed
                    ],
                )
        upsert(tx, steps, [_step_row(n, s, spot.partition) for n in touched for s in n.steps.values()])
        _save_early(tx, spot, state)
        fresh = [(k, v) for k, v in state.box.commands.items() if k not in state.commands_before]
        insert_new(
            tx,
            marks,
            [{"user_id": u, "cmd": c, "partition": spot.partition, "offset": o, "at": at} for (u, c), (o, at) in fresh],
        )
        wanted = [(u, b) for u, b in state.box.preferences.items() if state.preferences_before.get(u) != b]
        upsert(
            tx,
            preferences,
            [{"user_id": u, "partition": spot.partition, "offset": state.offset, "body": b} for u, b in wanted],
        )

    def answers(self, tx: Connection, spot: Spot, state: State, decider: Decider) -> list[tuple[int, Outgoing]]:
        """Decide each asked step that is not answered and does not wait in the outbox, in log order."""
        asked = [(n, s) for n in state.box.notices.values() for s in n.steps.values() if s.state == "asked"]
        if not asked:
            return []
        waiting = waiting_ids(tx, (decided_id(n.user, n.notice_id, s) for n, s in asked))
        asked = [(n, s) for n, s in asked if decided_id(n.user, n.notice_id, s) not in waiting]
        people = {s.value for _, s in asked if s.kind == "recipient"}
        bodies: dict[str, str] = {}
        for part in _slices(people):
            r = recipients.c
            query = select(r.recipient_id, r.body).where(r.recipient_id.in_(part), r.deleted.is_(False))
            bodies.update({row.recipient_id: row.body for row in tx.execute(query)})
        questions = [
            Question(
                n.user,
                n.notice_id,
                spot.partition,
                n.alert,
                n.severity,
                s,
                bodies.get(s.value) if s.kind == "recipient" else None,
            )
            for n, s in asked
        ]
        questions.sort(key=lambda q: q.step.asked_offset or 0)
        return [(q.step.asked_offset or 0, decide(q, decider.producer, decider.occurred_at)) for q in questions]

    def asked(self, tx: Connection, spot: Spot) -> State | None:
        """Every notice of the partition with an asked step."""
        s = steps.c
        found = tx.execute(
            select(s.user_id, s.notice_id).where(s.partition == spot.partition, s.state == "asked").distinct()
        )
        keys = {(r.user_id, r.notice_id) for r in found}
        return load_notices(tx, keys) if keys else None


def load_notices(tx: Connection, keys: Iterable[Key]) -> State:
    """Notices with their steps and early records."""
    state = State(Box())
    for part in _slices(set(keys)):
        for row in tx.execute(_NOTICES, {"keys": part}):
            notice = _notice(row)
            state.box.notices[notice.user, notice.notice_id] = notice
            state.known.add((notice.user, notice.notice_id))
            state.versions[notice.user, notice.notice_id] = notice.version
        for row in tx.execute(_STEPS, {"keys": part}) if state.known else ():
            state.box.notices[row.user_id, row.notice_id].steps[f"{row.what}/{row.step}"] = _step(row)
        for row in tx.execute(_EARLY, {"keys": part}):
            record = Record(NOTICES, row.partition, row.offset, row.at, row.user_id, decode(bytes(row.value)))
            state.box.early.setdefault((row.user_id, row.notice_id), []).append(record)
    state.early_before = {k: list(v) for k, v in state.box.early.items()}
    return state


def _unmarked(tx: Connection, e: NoticeMarked) -> list[Key]:
    """What a mark of all before a position may change."""
    n = notices.c
    changes: Any = {
        "seen": n.seen_at.is_(None),
        "read": or_(n.read_at.is_(None), n.stopped.is_(False)),
        "unread": n.read_at.is_not(None),
        "archived": or_(n.archived_at.is_(None), n.stopped.is_(False)),
        "unarchived": n.archived_at.is_not(None),
    }.get(e.mark, n.archived_at.is_(None))
    query = select(n.user_id, n.notice_id).where(n.user_id == e.user, n.raised_offset < e.up_to, changes)
    return [(r.user_id, r.notice_id) for r in tx.execute(query)]


def _save_early(tx: Connection, spot: Spot, state: State) -> None:
    for key in state.early_before.keys() | state.box.early.keys():
        before, now = state.early_before.get(key, []), state.box.early.get(key, [])
        if before == now:
            continue
        tx.execute(delete(early).where(early.c.user_id == key[0], early.c.notice_id == key[1]))
        rows = [
            {
                "user_id": key[0],
                "notice_id": key[1],
                "partition": spot.partition,
                "offset": r.offset,
                "at": r.timestamp,
                "value": encode(r.event) if r.event else b"",
            }
            for r in now
        ]
        if rows:
            tx.execute(insert(early), rows)


def _row(n: Notice, partition: int) -> dict[str, Any]:
    return {
        "user_id": n.user,
        "notice_id": n.notice_id,
        "partition": partition,
        "version_offset": n.version[0],
        "version_index": n.version[1],
        **{f: getattr(n, f) for f in _PLAIN},
    }


def _notice(row: Any) -> Notice:
    return Notice(
        user=row.user_id,
        notice_id=row.notice_id,
        version=(row.version_offset, row.version_index),
        **{f: getattr(row, f) for f in _PLAIN},
    )


# What stands in columns of the same names; of the others two are the key, one is two columns, one a table.
_PLAIN = tuple(f.name for f in fields(Notice) if f.name not in ("user", "notice_id", "version", "steps"))


def _step_row(n: Notice, s: Step, partition: int) -> dict[str, Any]:
    return {
        "user_id": n.user,
        "notice_id": n.notice_id,
        "partition": partition,
        **{f: getattr(s, f) for f in _STEP},
    }


def _step(row: Any) -> Step:
    return Step(**{f: getattr(row, f) for f in _STEP})


_STEP = tuple(f.name for f in fields(Step))


def _slices(items: Iterable[Any]) -> Iterable[list[Any]]:
    all_ = sorted(items)
    return (all_[i : i + SLICE] for i in range(0, len(all_), SLICE))
