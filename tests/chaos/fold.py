"""The oracle: what a partition of `notices` means, folded anew in one pass and apart from the code under test.

It knows nothing of the product but its events. For every question that the log asked it also notes what stood before
it, so that the judge can answer it by itself and compare.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from tests.chaos.told import Answer, Key, Lane, Question, QuestionKey, Told, wish_of
from topics.durations import milliseconds
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
from topics.fetch import Item

STOPPING = ("read", "archived")
MESSAGES = ("forward", "repeat")
SEVERITIES = ("info", "warning", "error", "critical")


class Partition:
    """The whole of a partition, folded."""

    def __init__(self, items: Iterable[Item]) -> None:
        self.told: dict[Key, Told] = {}
        self.questions: dict[QuestionKey, Question] = {}
        self.answers: dict[QuestionKey, Answer] = {}
        self.preferences: dict[str, dict[str, Any]] = {}
        self.commands: set[Key] = set()
        self.cancelled: set[str] = set()  # deliveries that were recalled, by the decision that asked for them
        self.carried: dict[str, tuple[str, ...]] = {}  # by the decision on a digest: the notices in it
        self.unasked: list[Decided] = []
        self.races: dict[Key, tuple[str, int]] = {}  # who came first, the reader or the first Due, and by how many ms
        self._of: defaultdict[str, list[Told]] = defaultdict(list)
        self._scopes: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
        self._early: defaultdict[Key, list[Record]] = defaultdict(list)
        for item in items:
            if isinstance(item, Record) and item.event is not None:
                self._take(item)

    def _take(self, r: Record) -> None:
        match r.event:
            case NoticeRaised() as e if (e.user, e.notice_id) not in self.told:
                self._raise(r, e)
            case NoticeUpdated() | NoticeEnded() as e:
                told = self.told.get((e.user, e.notice_id))
                if told is None:
                    self._early[e.user, e.notice_id].append(r)
                elif isinstance(e, NoticeEnded):
                    self._end(r, told)
                elif (e.cause_offset, e.cause_index) > told.version:
                    told.version, told.severity = (e.cause_offset, e.cause_index), e.severity
            case NoticeMarked() as e if (e.user, e.cmd) not in self.commands:
                self.commands.add((e.user, e.cmd))
                self._mark(r, e)
            case PreferencesChanged() as e if (e.user, e.cmd) not in self.commands:
                self.commands.add((e.user, e.cmd))
                self.preferences[e.user] = json.loads(e.body)
            case Due() as e:
                self._due(r, e)
            case Decided() as e:
                self._decided(r, e)

    # ------------------------------------------------------------------ the notice
    def _raise(self, r: Record, e: NoticeRaised) -> None:
        key = (e.user, e.notice_id)
        told = Told(key, e, r.offset, r.timestamp, json.loads(e.forward or "{}"), e.config_id or "", e.severity)
        wishes = self.preferences.get(e.user, {})
        for lane in e.lanes:
            after, person = lane.after_ms, lane.kind == "recipient"
            wish = wish_of(wishes, e.alert, lane.channel).get("after")
            if person and wish is not None and lane.step == lane.channel:
                after = milliseconds(wish)
            if lane.channel != "inbox":
                told.lanes["forward", lane.step] = Lane("forward", lane.step, lane.channel, person, r.timestamp + after)
        self.told[key] = told
        self._of[e.user].append(told)
        for early in self._early.pop(key, []):
            self._take(early)

    def _end(self, r: Record, told: Told) -> None:
        if told.ended is None:
            told.ended = r.timestamp
            self._stop(r, told)
            self._ask_resolved(r, told)

    def _mark(self, r: Record, e: NoticeMarked) -> None:
        meant = [self.told.get((e.user, i)) for i in e.ids]
        if e.up_to is not None:
            meant = [t for t in self._of[e.user] if t.offset < e.up_to and not (e.mark == "snoozed" and t.archived)]
        for told in meant:
            if told is None or told.raised is None or not told.raised.inbox:
                continue
            told.seen = told.seen or e.mark in ("seen", *STOPPING)
            told.read = e.mark == "read" or (told.read and e.mark != "unread")
            told.archived = e.mark == "archived" or (told.archived and e.mark != "unarchived")
            if e.mark in STOPPING:
                self._stop(r, told)
            if e.mark == "snoozed" and e.until is not None:
                self._snooze(told, e.until)

    def _stop(self, r: Record, told: Told) -> None:
        if told.stopped is not None:
            return
        told.stopped = r.offset
        for lane in told.lanes.values():
            if lane.what not in MESSAGES:
                continue
            if lane.what == "forward" and lane.number == 0 and lane.state != "skipped":
                late = lane.state != "waiting"
                apart = r.timestamp - lane.asked_at if late else lane.due_at - r.timestamp
                self.races.setdefault(told.key, ("due" if late else "reader", abs(apart)))
            if lane.state in ("waiting", "collected"):
                lane.state = "skipped"
            self.cancelled.update(lane.told)

    def _snooze(self, told: Told, until: int) -> None:
        told.snoozed, told.hold = until, max(told.hold, until)
        for lane in told.lanes.values():
            if lane.what in MESSAGES and lane.state in ("waiting", "collected"):
                lane.number, lane.state, lane.due_at = lane.number + 1, "waiting", max(lane.due_at, until)
        before = told.lanes.get(("snooze", ""))
        number = before.number + 1 if before else 1
        told.lanes["snooze", ""] = Lane("snooze", "", "inbox", True, until, number)

    # ------------------------------------------------------------------ questions
    def _due(self, r: Record, e: Due) -> None:
        told = self.told.get((e.user, e.notice_id))
        lane = told.lanes.get((e.what, e.step)) if told else None
        if (
            told is None
            or lane is None
            or (lane.state, lane.number) != ("waiting", e.number)
            or r.timestamp < lane.due_at
        ):
            return
        if lane.what == "snooze":
            lane.state, told.snoozed, told.seen, told.read = "returned", None, False, False
            return
        self._ask(r, told, lane)

    def _ask(self, r: Record, told: Told, lane: Lane) -> None:
        lane.state, lane.asked_at = "asked", r.timestamp
        gathered, worst = [], ["info"]
        if lane.what == "digest":
            for notice, member in self._members(told, "collected"):
                member.state = "gathered"
                gathered.append(notice.key[1])
                worst.append(notice.severity)
            told.severity = max(worst, key=SEVERITIES.index)
        user = told.key[0]
        key = (*told.key, lane.what, lane.step, lane.number)
        self.questions[key] = Question(
            key, told, lane, r.offset, r.timestamp, self.preferences.get(user, {}), told.severity,
            tuple(self._scopes[told.key[0], told.config, lane.channel]), tuple(dict.fromkeys(gathered)),
        )  # fmt: skip

    def _ask_resolved(self, r: Record, told: Told) -> None:
        if told.ended is None or told.plan.get("tell_resolved") is not True:
            return
        for lane in list(told.lanes.values()):
            if lane.what in MESSAGES and (lane.told or lane.carried) and ("resolved", lane.channel) not in told.lanes:
                asked = Lane("resolved", lane.channel, lane.channel, lane.person, r.timestamp)
                told.lanes["resolved", lane.channel] = asked
                self._ask(r, told, asked)

    # ------------------------------------------------------------------ answers
    def _decided(self, r: Record, e: Decided) -> None:
        key = (e.user, e.notice_id, e.what, e.step, e.number)
        if key in self.answers:
            self.answers[key].others.append(e)
            return
        if key not in self.questions:
            self.unasked.append(e)
            return
        self.answers[key] = Answer(e, r.offset, r.timestamp)
        told, lane = self.questions[key].told, self.questions[key].lane
        if lane.what == "digest":
            self._digest_decided(r, e, told, lane)
        elif e.answer == "deliver":
            lane.state, lane.held_in = "delivered", ""
            lane.told.append(e.event_id)
            self._scopes[told.key[0], told.config, lane.channel].append(lane.asked_at)
            self._ask_resolved(r, told)
            self._again(told, lane, lane.asked_at)
        elif e.answer == "postpone" and (told.stopped is None or lane.what == "resolved"):
            lane.number += 1
            named, until = json.loads(e.body).get("digest") or "", e.until or 0
            if named and told.hold <= r.timestamp and lane.what in MESSAGES:
                lane.state, lane.held_in, lane.due_at = "collected", named, until
                self._collect(r, e, told, lane)
            else:
                lane.state, lane.due_at = "waiting", max(until, told.hold)
        else:
            lane.state, lane.silenced = "skipped", e.reason == "silenced"
            self._again(told, lane, lane.asked_at)

    def _again(self, told: Told, lane: Lane, asked_at: int) -> None:
        """Repeat, while it stands: after it was said, or kept silent about."""
        raised = told.raised
        lasting = raised is not None and (raised.kind == "condition" or (raised.kind == "direct" and raised.key))
        every = told.plan.get("repeat")
        said = lane.what in MESSAGES and (lane.state == "delivered" or lane.silenced)
        if not every or not lasting or not said or told.stopped is not None:
            return
        due_at = max(asked_at + milliseconds(every), told.hold)
        before = told.lanes.get(("repeat", lane.step))
        if before is None:
            told.lanes["repeat", lane.step] = Lane("repeat", lane.step, lane.channel, lane.person, due_at)
        else:
            before.number, before.due_at, before.state, before.silenced = before.number + 1, due_at, "waiting", False

    # ------------------------------------------------------------------ digests
    def _collect(self, r: Record, e: Decided, told: Told, lane: Lane) -> None:
        key = (told.key[0], lane.held_in)
        digest = self.told.get(key)
        if digest is None:
            wish = wish_of(self.questions[*told.key, e.what, e.step, e.number].preferences, _alert(told), lane.channel)
            own = e.reason == "digest" and wish.get("digest") is not None  # its reader wants all in one
            digest = Told(key, None, r.offset, r.timestamp, {} if own else told.plan, "" if own else told.config)
            digest.lanes["digest", lane.channel] = Lane(
                "digest", lane.channel, lane.channel, lane.person, 0, state="skipped"
            )
            self.told[key] = digest
        waits = digest.lanes["digest", lane.channel]
        if waits.state in ("skipped", "delivered"):
            waits.number, waits.state, waits.due_at = waits.number + 1, "waiting", lane.due_at

    def _members(self, digest: Told, state: str) -> list[tuple[Told, Lane]]:
        user, named = digest.key
        return [
            (told, lane)
            for told in self._of[user]
            for lane in told.lanes.values()
            if (lane.held_in, lane.state) == (named, state)
        ]

    def _digest_decided(self, r: Record, e: Decided, digest: Told, waits: Lane) -> None:
        gathered = self._members(digest, "gathered")
        if e.answer == "postpone":
            waits.number, waits.state, waits.due_at = waits.number + 1, "waiting", e.until or 0
            for told, lane in gathered:
                lane.state = "collected" if told.stopped is None else "skipped"
                if told.stopped is None and told.hold > r.timestamp:  # snoozed meanwhile: the later of both
                    lane.number, lane.state, lane.due_at = lane.number + 1, "waiting", max(waits.due_at, told.hold)
            return
        sent = e.answer == "deliver"
        waits.state = "delivered" if sent else "skipped"
        if sent:
            self.carried[e.event_id] = tuple(dict.fromkeys(t.key[1] for t, _ in gathered))
            self._scopes[digest.key[0], digest.config, waits.channel].append(waits.asked_at)
        for _, lane in gathered:
            lane.state, lane.silenced = waits.state, e.reason == "silenced"
            lane.carried += [e.event_id] if sent else []
        if left := self._members(digest, "collected"):
            waits.number, waits.state = waits.number + 1, "waiting"
            waits.due_at = min(lane.due_at for _, lane in left)
        for told, lane in gathered:
            self._again(told, lane, waits.asked_at)
            self._ask_resolved(r, told)


def _alert(told: Told) -> str | None:
    return told.raised.alert if told.raised else None
