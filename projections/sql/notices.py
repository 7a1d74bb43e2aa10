"""The rows behind the fold of `notices`: loads what a batch touches, saves what changed, collects what is asked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, or_, select

from projections.box import HELD, Box
from projections.deciding import decide
from projections.digests import digest_named, named_in
from projections.notice import Notice
from projections.notices import apply
from projections.outgoing import Outgoing
from projections.sql.fold import Decider
from projections.sql.keys import among
from projections.sql.looks import looked_at
from projections.sql.rows import NO_TEXT, NOTICE, STEP, early_of, notice_columns, notice_of, step_of
from projections.sql.schema import early, marks, notices, preferences, steps, tallies
from projections.sql.store import insert_all, update_all, upsert
from topics.codec import encode
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
TEXTS, VERSION = ("severity", "forward", "body"), ("version_offset", "version_index")
FLAGS = ("changed_offset", "seen_at", "read_at", "archived_at", "snoozed_until", "hold", "ended_at", "stopped")

_FIELDS = tuple(f.name for f in fields(Notice))[:-1]  # without the steps
_VERSION = _FIELDS.index("version")
_THESE = among(notices.c.user_id, notices.c.notice_id)
_NOTICES = select(*NOTICE).where(_THESE)
_TEXTLESS = select(*notice_columns(body=NO_TEXT)).where(_THESE)
_STEPS = select(steps.c.user_id, steps.c.notice_id, *STEP).where(among(steps.c.user_id, steps.c.notice_id))
_EARLY = select(early).where(among(early.c.user_id, early.c.notice_id)).order_by(early.c.offset)
_ANY_EARLY = select(early.c.offset).limit(1)
_COMMANDS = select(marks).where(among(marks.c.user_id, marks.c.cmd))
_HELD = select(steps.c.user_id, steps.c.notice_id).where(
    among(steps.c.user_id, steps.c.held_in), steps.c.state.in_(HELD)
)
_PREFERENCES = select(preferences).where(among(preferences.c.user_id))


class _Known(NamedTuple):
    """What the rows say of a notice, as far as it can change."""

    flags: Any
    version: tuple[int, int]
    counted: tuple[bool, bool]


@dataclass(slots=True)
class State:
    """A box with what was there when it was loaded."""

    box: Box
    known: dict[Key, _Known] = field(default_factory=dict)
    early_before: dict[Key, list[Record]] = field(default_factory=dict)
    commands_before: dict[Key, tuple[int, int]] = field(default_factory=dict)
    preferences_before: dict[str, str] = field(default_factory=dict)
    offset: int = 0


class NoticesFold:
    """TopicFold of `notices`."""

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """The notices, steps, early records, commands and preferences that these records touch."""
        keys: set[Key] = set()
        decided: set[Key] = set()
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
                case NoticeUpdated() as e:
                    keys.add((e.user, e.notice_id))
                case NoticeRaised() | NoticeEnded() | Due() | Decided() as e:
                    keys.add((e.user, e.notice_id))
                    users.add(e.user)
                    if isinstance(e, Due | Decided) and e.what == "digest":
                        decided.add((e.user, e.notice_id))
                    elif isinstance(e, Decided) and (digest := digest_named(e)):
                        keys.add((e.user, digest))
        state = load_notices(tx, keys)
        _load_named(tx, state)
        open_ = {k for k, n in state.box.notices.items() if n.kind == "digest" and _asked(n)}
        load_held(tx, state, decided | open_)  # whatever is asked here may be decided in this transaction
        if commands:
            found = tx.execute(_COMMANDS, {"keys": commands})
            state.box.commands.update({(r.user_id, r.cmd): (r.offset, r.at) for r in found})
        state.commands_before = dict(state.box.commands)
        if users:
            found = tx.execute(_PREFERENCES, {"keys": users})
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
        old = [(n, known) for n in touched if (known := state.known.get(_key(n)))]
        at = (spot.partition,)
        insert_all(tx, notices, [_row(n, spot.partition) for n in touched if _key(n) not in state.known])
        moved = [n for n, known in old if _flags(n) != known.flags]
        update_all(tx, notices, FLAGS, [_flags(n) + _key(n) for n in moved])
        changed = [n for n, known in old if n.version != known.version]
        update_all(tx, notices, (*TEXTS, *VERSION), [_texts(n) + n.version + _key(n) for n in changed])
        upsert(tx, steps, [_key(n) + _name(s) + at + _rest(s) for n in touched for s in n.steps.values()])
        _save_early(tx, spot, state)
        _save_tallies(tx, state, touched)
        fresh = [(k, v) for k, v in state.box.commands.items() if state.commands_before.get(k) != v]
        upsert(tx, marks, [(*command, spot.partition, *taken) for command, taken in fresh])
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
        questions, looks = looked_at(tx, spot.partition, state.box, asked)
        return decide(questions, looks, decider.producer, decider.occurred_at)

    def asked(self, tx: Connection, spot: Spot) -> State | None:
        """Every notice of the partition with an asked step."""
        s = steps.c
        found = tx.execute(
            select(s.user_id, s.notice_id, s.what).where(s.partition == spot.partition, s.state == "asked").distinct()
        ).all()
        if not found:
            return None
        state = load_notices(tx, {(r.user_id, r.notice_id) for r in found})
        load_held(tx, state, {(r.user_id, r.notice_id) for r in found if r.what == "digest"})
        return state


def _asked(notice: Notice) -> bool:
    return any(s.state == "asked" for s in notice.steps.values())


def load_notices(tx: Connection, keys: Iterable[Key]) -> State:
    """Notices with their steps and early records."""
    state = State(Box())
    _load(tx, state, keys, with_text=True)
    return state


def load_held(tx: Connection, state: State, digests: Iterable[Key]) -> None:
    """What these digests hold: of other notices only what is needed to settle them, not their texts."""
    if wanted := set(digests):
        held = {(r.user_id, r.notice_id) for r in tx.execute(_HELD, {"keys": wanted})}
        _load(tx, state, held - state.known.keys(), with_text=False)


def _load_named(tx: Connection, state: State) -> None:
    """The digests that early answers name, and whatever the digests name."""
    answers = [(u, r.event) for (u, _), kept in state.box.early.items() for r in kept if isinstance(r.event, Decided)]
    _load(tx, state, {(u, d) for u, e in answers if (d := digest_named(e))} - state.known.keys(), with_text=True)
    named = {(n.user, i) for n in state.box.notices.values() if n.kind == "digest" for i in named_in(n)}
    _load(tx, state, named - state.known.keys(), with_text=False)


def _load(tx: Connection, state: State, keys: Iterable[Key], *, with_text: bool) -> None:
    wanted = set(keys)
    if not wanted:
        return
    known = len(state.known)
    for row in tx.execute(_NOTICES if with_text else _TEXTLESS, {"keys": wanted}):
        notice = notice_of(row, {})
        state.box.notices[_key(notice)] = notice
        state.known[_key(notice)] = _Known(_flags(notice), notice.version, (notice.unread, notice.unseen))
    for row in tx.execute(_STEPS, {"keys": wanted}) if len(state.known) > known else ():
        state.box.add_step(state.box.notices[row[:2]], step_of(row[2:]))
    if not with_text or tx.execute(_ANY_EARLY).first() is None:
        return
    for row in tx.execute(_EARLY, {"keys": wanted}):
        record = early_of(row)
        for kept in (state.box.early, state.early_before):
            kept.setdefault((row.user_id, row.notice_id), []).append(record)


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
    query = select(n.user_id, n.notice_id).where(
        n.user_id == e.user, n.inbox.is_(True), n.raised_offset < e.up_to, changes
    )
    return [(r.user_id, r.notice_id) for r in tx.execute(query)]


def _save_tallies(tx: Connection, state: State, touched: list[Notice]) -> None:
    """Counts move by what changed, so they equal a fresh count after each transaction."""
    unread: Counter[str] = Counter()
    unseen: Counter[str] = Counter()
    for n in touched:
        known = state.known.get(_key(n))
        was_unread, was_unseen = known.counted if known else (False, False)
        unread[n.user] += n.unread - was_unread
        unseen[n.user] += n.unseen - was_unseen
    moved = [{"user_id": u, "unread": unread[u], "unseen": unseen[u]} for u in unread if unread[u] or unseen[u]]
    upsert(tx, tallies, moved, adding=("unread", "unseen"))


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
        insert_all(tx, early, rows)


def _row(notice: Notice, partition: int) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    v = _all(notice)
    return (*v[:2], partition, *v[2:_VERSION], *v[_VERSION], *v[_VERSION + 1 :])


# The parts of rows: called for each notice of each batch.
_key: Any = attrgetter("user", "notice_id")
_all: Any = attrgetter(*_FIELDS)
_flags: Any = attrgetter(*FLAGS)
_texts: Any = attrgetter(*TEXTS)
_name: Any = attrgetter("what", "step")
_rest: Any = attrgetter(*(c.name for c in steps.columns if c in STEP and c.name not in ("what", "step")))
