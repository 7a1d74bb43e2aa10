"""What the log means, by search: written apart from the folds and sharing nothing with them but the events."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from topics.catalogue import DEAD_LETTERS, DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.dead_letters import DeadLetter
from topics.events import Decided, DeliveryRequested, NoticeMarked, Record
from topics.fetch import Item, Spot
from topics.ids import direct_notice_id

INF = 10**12
Parts = dict[Spot, list[Item]]


def kind(item: Item) -> str:
    return type(item.event).__name__ if isinstance(item, Record) else "Broken"


def dead(parts: Parts) -> set[tuple[str, int, int]]:
    letters = [i for i in parts[Spot(DEAD_LETTERS, 0)] if isinstance(i, DeadLetter)]
    return {(d.source_topic, d.source_partition, d.source_offset) for d in letters}


def wanted(parts: Parts) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(notice, user) pairs that the requests must have raised, and ended."""
    raised: set[tuple[str, str]] = set()
    ended: set[tuple[str, str]] = set()
    for spot, part in parts.items():
        if spot.topic != NOTICE_REQUESTS:
            continue
        newest: dict[str, int] = {}
        counted: dict[str, int] = {}
        live: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for item in part:
            e: Any = item.event if isinstance(item, Record) else None
            match kind(item):
                case "AlertStarted":
                    newest[e.alert], counted[e.alert] = item.offset, 0
                case "AlertCommitted" if newest.get(e.alert) == e.run and counted[e.alert] + 1 == e.number:
                    counted[e.alert] += 1
                    for effect in e.effects:
                        at = (e.alert, effect.key)
                        if effect.op == "raise" and at not in live:
                            live[at] = {(effect.notice_id, lane.value) for lane in effect.lanes}
                            raised |= live[at]
                        elif effect.op == "resolve":
                            ended |= live.pop(at, set())
                case "NoticeRequested" if e.key is None or ("", e.key) not in live:
                    mine = {(f"{e.request_key}", u) for u in e.users}
                    raised |= mine
                    if e.key is not None:
                        live["", e.key] = mine
                case "NoticeResolved":
                    ended |= live.pop(("", e.key), set())
    return raised, ended


class Inbox:
    """What a partition of `notices` means: for each notice where its records stand, and what follows from that."""

    def __init__(self, part: list[Item]) -> None:
        self.by_id: dict[str, int] = {}
        self.part = part
        self.about: dict[tuple[str, str], list[Record]] = {}
        self.prefs: dict[str, list[tuple[int, str]]] = {}
        self.decisions: list[tuple[tuple[str, str, str, int], int, Any]] = []
        commands: set[tuple[str, str]] = set()
        everyone: list[Record] = []
        for item in part:
            if not isinstance(item, Record):
                continue
            e: Any = item.event
            name = kind(item)
            if name in ("NoticeMarked", "PreferencesChanged"):
                if (e.user, e.cmd) in commands:
                    continue
                commands.add((e.user, e.cmd))
                if name == "PreferencesChanged":
                    self.prefs.setdefault(e.user, []).append((item.offset, e.body.decode()))
                    continue
                everyone.append(item)
            elif (
                name in ("NoticeRaised", "NoticeUpdated", "NoticeEnded", "Decided")
                and self.by_id.setdefault(e.event_id, item.offset) != item.offset
            ):
                continue
            if name in ("NoticeRaised", "NoticeUpdated", "NoticeEnded", "Due", "Decided"):
                self.about.setdefault((e.user, e.notice_id), []).append(item)
        born = {k: next((r for r in rs if kind(r) == "NoticeRaised"), None) for k, rs in self.about.items()}
        for m in everyone:
            e = m.event
            for (user, nid), raised in born.items():
                if (
                    user == e.user
                    and raised
                    and (nid in e.ids or (e.up_to is not None and raised.offset < min(e.up_to, m.offset)))
                ):
                    self.about[user, nid].append(m)
        self.view = {k: self.one(k, sorted(rs, key=lambda r: r.offset)) for k, rs in self.about.items() if born[k]}

    def one(self, k: tuple[str, str], rs: list[Record]) -> tuple[Any, ...]:
        raised = next(r for r in rs if kind(r) == "NoticeRaised")
        born = raised.offset
        ended = min((r.offset for r in rs if kind(r) == "NoticeEnded"), default=INF)
        marks = [
            (r.offset, r.event.mark, r.event.until) for r in rs if isinstance(r.event, NoticeMarked) and r.offset > born
        ]

        def final(yes: str, no: str, cleared: int = -1) -> bool:
            return next((a == yes for o, a, _ in reversed(marks) if a in (yes, no) and o > cleared), False)

        stop = max(born, min([ended] + [o for o, a, _ in marks if a in ("read", "archived")]))
        snoozes = [(o, until) for o, a, until in marks if a == "snoozed" and until is not None]
        dues: list[tuple[int, Any, int]] = [(r.offset, r.event, r.timestamp) for r in rs if kind(r) == "Due"]
        snoozed, returned = None, -1
        for i, (o, until) in enumerate(snoozes):
            next_one = snoozes[i + 1][0] if i + 1 < len(snoozes) else INF
            back = [
                x for x, d, ts in dues if o < x < next_one and (d.what, d.number) == ("snooze", i + 1) and ts >= until
            ]
            returned = min(back, default=returned)
            snoozed = None if back else until
        event: Any = raised.event
        lanes = tuple(
            (lane.step, *self.lane(k, lane.step, raised.timestamp + lane.after_ms, born, stop, snoozes, dues))
            for lane in sorted(event.lanes, key=lambda lane: lane.step)
        )
        return final("read", "unread", returned), final("archived", "unarchived"), snoozed, ended < INF, lanes

    def lane(
        self,
        k: tuple[str, str],
        step: str,
        due_at: int,
        at: int,
        stop: int,
        snoozes: list[tuple[int, int]],
        dues: list[tuple[int, Any, int]],
    ) -> tuple[int, int, str]:
        number = 0
        while True:
            good = [
                (o, ts)
                for o, d, ts in dues
                if o > at and (d.what, d.step, d.number) == ("forward", step, number) and ts >= due_at
            ]
            due = good[0][0] if good else INF
            snooze, until = next((x for x in snoozes if x[0] > at), (INF, 0))
            first = min(due, snooze, stop)
            if first == INF:
                return number, due_at, "waiting"
            if first == stop:
                return number, due_at, "skipped"
            if first == snooze:
                number, due_at, at = number + 1, max(due_at, until), snooze
                continue
            told: Any = next(
                (
                    i.event
                    for i in self.part
                    if isinstance(i, Record)
                    and isinstance(i.event, Decided)
                    and (i.event.user, i.event.notice_id, i.event.step, i.event.number) == (*k, step, number)
                ),
                None,
            )
            self.decisions.append(((*k, step, number), due, told))
            if told is None:
                return number, due_at, "asked"
            return number, due_at, "delivered" if told.answer == "deliver" else "skipped"


def check(parts: Parts, rows: dict[tuple[str, str], tuple[Any, ...]]) -> None:
    """Every rule that the final log and the rows can show."""
    letters, (raised, ended) = dead(parts), wanted(parts)
    seen: Counter[tuple[str, str]] = Counter()
    over: set[tuple[str, str]] = set()
    asked: list[Any] = []
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for spot, part in parts.items():
        for item in part:
            misplaced = kind(item) == "RecipientChanged" and spot.topic in (NOTICES, NOTICE_REQUESTS)
            assert (
                not (kind(item) == "Broken" and not isinstance(item, DeadLetter)) or (*spot, item.offset) in letters
            ), "dropped in silence"
            assert not misplaced or (*spot, item.offset) in letters, "dropped in silence"
        if spot.topic != NOTICES:
            continue
        box = Inbox(part)
        found |= box.view
        for user, nid in box.view:
            seen[direct(nid), user] += 1
            if box.view[user, nid][3]:
                over.add((direct(nid), user))
        for question, offset, told in box.decisions:
            assert told is not None, f"asked, never decided: {question}"
            asked.append((question, told))
            looked = json.loads(told.body)["looked_at"]
            prefs = next((p for o, p in reversed(box.prefs.get(question[0], [])) if o < offset), "{}")
            assert looked["preferences"] == json.loads(prefs), "decided by other preferences than those before the Due"
            off = json.loads(prefs).get("channels", {}).get("email") is False and question[2] == "email"
            expected = "skip" if off or not looked["address"] else "deliver"
            assert told.answer == expected, f"{question}: {told.answer} {told.reason}"
    assert rows == found, [
        (k, rows.get(k), found.get(k)) for k in rows.keys() | found.keys() if rows.get(k) != found.get(k)
    ][:1]
    assert set(seen) == {(direct_of(n, u), u) for n, u in raised}, "raised what nobody asked for, or lost it"
    assert over == {(direct_of(n, u), u) for n, u in ended}, "ended"
    due = {(u, n, s, number) for (u, n, s, number), told in asked if told.answer == "deliver"}
    ids = {
        i.event.event_id: (i.event.user, i.event.notice_id, i.event.step)
        for s, p in parts.items()
        if s.topic == DELIVERIES
        for i in p
        if isinstance(i, Record) and isinstance(i.event, DeliveryRequested)
    }
    assert sorted(ids.values()) == sorted((u, n, s) for u, n, s, _ in due), "delivered other than decided"


def direct(notice_id: str) -> str:
    return notice_id


def direct_of(name: str, user: str) -> str:
    """The notice id of what a request named: an alert says it, a direct one is derived."""
    return name if "/" in name else direct_notice_id("shop", name, user)
