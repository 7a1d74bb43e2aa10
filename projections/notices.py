"""The fold of the `notices` topic: everybody's notices, what waits for them, and the answers that were read back.

`apply` uses only the record and what stands before it on its own partition (rule 2): no clock, no settings, no other
topic. The worker runs it over rows, the gateway runs the same function over one user's notices.
"""

from __future__ import annotations

from dataclasses import dataclass

from projections import digests
from projections.box import Box
from projections.delivery import LATEST_MS
from projections.forwarding import (
    answer,
    ask,
    ask_resolved,
    check_decided,
    check_lanes,
    snooze_step,
    steps_of,
    stop,
)
from projections.notice import Notice, Step
from projections.outgoing import Outgoing, Refused
from projections.policy import preferences_of
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
from topics.json_text import checked

MARKS = ("seen", "read", "unread", "archived", "unarchived", "snoozed")
REMEMBERED_MS = 30 * 24 * 3_600_000  # how long a command is known again (rule 9)


@dataclass(frozen=True, slots=True)
class Change:
    """What a record changed, for those who watch: `op` as in the live protocol.

    `ids` is empty where the record changed nothing.
    """

    op: str
    user: str
    ids: tuple[str, ...]
    cmd: str | None = None


def apply(box: Box, record: Record) -> tuple[list[Outgoing], Change | None]:
    """Fold one record; what has to be said because of it, and what changed.

    Refused for an event that has no place on this topic.
    """
    e = record.event
    match e:
        case NoticeRaised():
            return _raised(box, record, e)
        case NoticeMarked():
            return _marked(box, record, e)
        case PreferencesChanged():
            wanted = _text(e.body)
            if _first_time(box, record, e.user, e.cmd):
                box.preferences[e.user] = wanted
            return [], None
        case NoticeUpdated() | NoticeEnded() | Due() | Decided():
            _check(e)
            notice = box.notices.get((e.user, e.notice_id))
            if notice is None:
                if not isinstance(e, Due):
                    box.early.setdefault((e.user, e.notice_id), []).append(record)
                return [], None
            if notice.kind == "digest" and not (isinstance(e, Due | Decided) and e.what == "digest"):
                return [], None  # a digest is the fold's own: nobody updates or ends it
            return _later(box, notice, record)
        case _:
            msg = f"{type(e).__name__} has no place on notices"
            raise Refused(msg)


def _raised(box: Box, record: Record, e: NoticeRaised) -> tuple[list[Outgoing], Change | None]:
    key = (e.user, e.notice_id)
    if key in box.notices:
        return [], None
    if e.kind == "digest":
        raise Refused("a digest is made by the fold alone")
    check_lanes(e.lanes)
    notice = Notice(
        user=e.user,
        notice_id=e.notice_id,
        raised_offset=record.offset,
        raised_at=record.timestamp,
        changed_offset=record.offset,
        inbox=e.inbox,
        kind=e.kind,
        alert=e.alert,
        config_id=e.config_id,
        key=e.key,
        entity_type=e.entity_type,
        entity_id=e.entity_id,
        severity=e.severity,
        forward=e.forward,
        body=_text(e.body),
        steps=steps_of(e, record.timestamp, preferences_of(box.preferences.get(e.user, ""))),
    )
    box.notices[key] = notice
    box.touched.add(key)
    out: list[Outgoing] = []
    for kept in box.early.pop(key, []):  # said before their NoticeRaised: taken now, in their order
        if isinstance(kept.event, Decided):
            box.early.setdefault(key, []).append(kept)
        else:
            out += _later(box, notice, kept)[0]
    notice.changed_offset = record.offset
    return out, Change("raised", e.user, (e.notice_id,))


def _later(box: Box, notice: Notice, record: Record) -> tuple[list[Outgoing], Change | None]:
    """A record about a notice that is there."""
    e = record.event
    box.touched.add((notice.user, notice.notice_id))
    match e:
        case NoticeUpdated():
            if (e.cause_offset, e.cause_index) <= notice.version:
                return [], None
            notice.severity, notice.body, notice.changed_offset = e.severity, _text(e.body), record.offset
            notice.version = (e.cause_offset, e.cause_index)
            return [], Change("updated", notice.user, (notice.notice_id,))
        case NoticeEnded():
            if notice.ended_at is not None:
                return [], None
            notice.ended_at, notice.changed_offset = record.timestamp, record.offset
            out = stop(notice, record, "ended")
            for asked in ask_resolved(notice, record, box.preferences.get(notice.user, "")):
                out += _answered_already(box, notice, asked)
            return out, Change("ended", notice.user, (notice.notice_id,))
        case Due(what="snooze"):
            step = notice.steps.get("snooze/")
            if step is None or not ask(step, e, record, ""):
                return [], None
            step.state, step.reason = "returned", ""
            notice.snoozed_until, notice.changed_offset = None, record.offset
            notice.seen_at, notice.read_at = None, None
            return [], Change("returned", notice.user, (notice.notice_id,))
        case Due():
            step = notice.steps.get(f"{e.what}/{e.step}")
            if step is None or not ask(step, e, record, box.preferences.get(notice.user, "")):
                return [], None
            if e.what == "digest":
                digests.gather(box, notice)
            return _answered_already(box, notice, step), None
        case Decided():
            return _decided(box, notice, record, e), None
    return [], None


def _decided(box: Box, notice: Notice, record: Record, e: Decided) -> list[Outgoing]:
    step = notice.steps.get(f"{e.what}/{e.step}")
    if step.number > e.number if step else e.what in ("forward", "snooze"):
        return []
    if step and (step.number, step.state) == (e.number, "asked"):
        return answer(box, notice, step, e, record)
    if step is None or e.number > step.number or step.state == "waiting":
        # only after a fault of the log: kept until its question is asked
        box.early.setdefault((notice.user, notice.notice_id), []).append(record)
    return []


def _answered_already(box: Box, notice: Notice, step: Step) -> list[Outgoing]:
    key = (notice.user, notice.notice_id)
    for kept in box.early.get(key, []):
        e = kept.event
        if isinstance(e, Decided) and (e.what, e.step, e.number) == (step.what, step.step, step.number):
            box.early[key].remove(kept)
            return answer(box, notice, step, e, kept)
    return []


def _marked(box: Box, record: Record, e: NoticeMarked) -> tuple[list[Outgoing], Change | None]:
    if e.mark not in MARKS:
        msg = f"a mark is one of {', '.join(MARKS)}, not {e.mark!r}"
        raise Refused(msg)
    if e.until is not None and not 0 <= e.until < LATEST_MS:
        msg = f"until {e.until} is no time"
        raise Refused(msg)
    if not _first_time(box, record, e.user, e.cmd):
        return [], None
    if e.up_to is None:
        marked = [n for i in e.ids if (n := box.notices.get((e.user, i))) and n.inbox]
    else:
        mine = [n for (user, _), n in box.notices.items() if user == e.user and n.inbox and n.raised_offset < e.up_to]
        marked = [n for n in mine if e.mark != "snoozed" or n.archived_at is None]  # what is archived is not woken up
    out: list[Outgoing] = []
    changed = []
    for notice in marked:
        before = (notice.seen_at, notice.read_at, notice.archived_at, notice.snoozed_until)
        out += _mark(notice, record, e)
        if before != (notice.seen_at, notice.read_at, notice.archived_at, notice.snoozed_until):
            notice.changed_offset = record.offset
            changed.append(notice.notice_id)
        box.touched.add((notice.user, notice.notice_id))
    return out, Change(e.mark, e.user, tuple(changed), e.cmd)


def _mark(notice: Notice, record: Record, e: NoticeMarked) -> list[Outgoing]:
    at = record.timestamp
    match e.mark:
        case "seen":
            notice.seen_at = notice.seen_at or at
        case "read":
            notice.seen_at, notice.read_at = notice.seen_at or at, notice.read_at or at
        case "unread":
            notice.read_at = None
        case "archived":
            notice.seen_at, notice.archived_at = notice.seen_at or at, notice.archived_at or at
        case "unarchived":
            notice.archived_at = None
        case "snoozed" if e.until is not None:
            notice.snoozed_until, notice.hold = e.until, max(notice.hold, e.until)
            snooze_step(notice, e.until)
    return stop(notice, record, e.mark) if e.mark in ("read", "archived") else []


def _check(e: NoticeUpdated | NoticeEnded | Due | Decided) -> None:
    """Refused before it is kept, or anything changes, for a body that could not be taken later."""
    if isinstance(e, NoticeUpdated):
        _text(e.body)
    elif isinstance(e, Decided):
        check_decided(e)


def _text(body: bytes) -> str:
    """A body as JSON text of an object. Refused if it is none."""
    try:
        return checked(body, an_object=True)
    except ValueError as error:
        msg = "the body is no JSON object"
        raise Refused(msg) from error


def _first_time(box: Box, record: Record, user: str, cmd: str) -> bool:
    """Rule 9: commands count once for (user, cmd), within 30 days of log time."""
    before = box.commands.get((user, cmd))
    if before is not None and record.timestamp - before[1] < REMEMBERED_MS:
        return False
    box.commands[user, cmd] = (record.offset, record.timestamp)
    return True
