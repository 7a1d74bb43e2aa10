"""The whole story of one receiver's notice, from records alone: why it was raised, who was told, what was decided, what
the other side answered. Pure: `topics.evidence` finds the records, this says what they mean.

A Due counts if a Decided answers it or the fold asks because of it; of several Decided with one id the first counts.
What has no effect (a repeat, a mark that changes nothing, an update older than the last) is left out.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from projections.box import Box
from projections.digests import digest_named
from projections.narration import Moment, moment
from projections.notice import Notice
from projections.notices import Change, apply
from projections.outgoing import Refused
from projections.policy import read_object
from projections.words import ERASED
from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.events import AlertCommitted, Decided, DeliveryRequested, Due, NoticeRaised, Record
from topics.evidence import Evidence, effects_of

_RANK = {NOTICE_REQUESTS: 1, NOTICES: 2, DELIVERIES: 3}  # causes first where the log's clock shows no difference

TIMES = ("raised_at", "seen_at", "read_at", "archived_at", "snoozed_until", "ended_at")


@dataclass(frozen=True, slots=True)
class Story:
    """`state` is how the notice stands now, `waits` what is still to come; times in ms. Moments in the log's order."""

    user: str
    notice_id: str
    title: str
    kind: str
    severity: str
    alert: str | None
    config_id: str | None
    key: str | None
    entity: tuple[str, str] | None
    state: dict[str, int | None]
    waits: tuple[dict[str, Any], ...]
    moments: tuple[Moment, ...]

    def shown(self, cut: Callable[[Moment], Moment]) -> Story:
        """The same with every moment cut to what somebody may see."""
        return replace(self, moments=tuple(map(cut, self.moments)))


def story(user: str, notice_id: str, evidence: Evidence) -> Story | None:
    """The story; null if the evidence holds no notice of this id."""
    box, counted, stopped_at = Box(), list[Moment](), None
    answered = {e.caused_by[0].offset for r in evidence.notices if isinstance(e := r.event, Decided) and e.caused_by}
    decided: set[str] = set()
    for record in evidence.notices:
        e = record.event
        if getattr(e, "notice_id", notice_id) != notice_id:
            continue
        before = copy.deepcopy(box.notices.get((user, notice_id)))
        change = _applied(box, record)
        after = box.notices.get((user, notice_id))
        if isinstance(e, Due):
            counts = record.offset in answered or _asked(after, e, record) or change is not None
        elif isinstance(e, Decided):
            counts = e.event_id not in decided
            decided.add(e.event_id)
        else:
            counts = change is not None and notice_id in change.ids
        if counts:
            counted.append(_with_ends(moment(record, notice_id, evidence), before, after))
        if stopped_at is None and after is not None and after.stopped:
            stopped_at = record.offset
    if not counted:
        return None
    digests = list({r.offset: r for r in _digests(notice_id, stopped_at, evidence)}.values())
    around = (*_causes(notice_id, evidence), *digests, *_deliveries(notice_id, digests, evidence))
    moments = [*counted, *(moment(r, notice_id, evidence) for r in around)]
    moments.sort(key=lambda m: (m.at, _RANK.get(m.topic, 0), m.topic, m.partition, m.offset))
    notice = box.notices.get((user, notice_id))
    about = (notice.entity_type, notice.entity_id) if notice else (None, None)
    return Story(
        user=user,
        notice_id=notice_id,
        title=_title(notice, evidence),
        kind=notice.kind if notice else "digest",
        severity=notice.severity if notice else "info",
        alert=notice.alert if notice else None,
        config_id=notice.config_id if notice else None,
        key=notice.key if notice else None,
        entity=(about[0], about[1]) if about[0] is not None and about[1] is not None else None,
        state={name: getattr(notice, name, None) for name in TIMES},
        waits=tuple(_waits(notice, digests)),
        moments=tuple(moments),
    )


def _title(notice: Notice | None, evidence: Evidence) -> str:
    if any(e.body_key is not None for r in evidence.notices if isinstance(e := r.event, NoticeRaised)):
        return ERASED
    return str(read_object(notice.body).get("title") or "") if notice else "A digest"


def _applied(box: Box, record: Record) -> Change | None:
    try:
        return apply(box, record)[1]
    except Refused:
        return None  # it stands on dead-letters; here it changed nothing


def _asked(notice: Notice | None, due: Due, record: Record) -> bool:
    step = notice.steps.get(f"{due.what}/{due.step}") if notice else None
    return step is not None and step.asked_offset == record.offset


def _with_ends(found: Moment, before: Notice | None, after: Notice | None) -> Moment:
    """Adds what a mark or an end stopped without a word on the log."""
    if before is None or after is None:
        return found
    ended = [
        step.step
        for name, step in after.steps.items()
        if found.event in ("NoticeMarked", "NoticeEnded")
        and step.state == "skipped"
        and name in before.steps
        and before.steps[name].state != "skipped"
    ]
    if not ended:
        return found
    told = f"{found.told}; no longer to be sent by {', '.join(ended)}"
    return replace(found, told=told, details=found.details | {"stopped": ended})


def _causes(notice_id: str, evidence: Evidence) -> Iterator[Record]:
    """The commits and requests that name this notice, their runs, and the configs and entities that they name."""
    commits = [r.event for r in evidence.causes.values() if isinstance(r.event, AlertCommitted)]
    effects = [effect for commit in commits for effect in effects_of(commit, notice_id)]
    named = [record for x in effects for cause in x.caused_by if (record := evidence.cause(cause))]
    said_so = [record for record in evidence.causes.values() if record.topic == NOTICE_REQUESTS]
    yield from {(r.topic, r.partition, r.offset): r for r in (*said_so, *named)}.values()


def _digests(notice_id: str, stopped_at: int | None, evidence: Evidence) -> Iterator[Record]:
    """Of each digest that this notice was put into and not taken out of again: the Due that came next, its decision."""
    dues = {r.offset: r for r in evidence.notices if isinstance(r.event, Due)}
    for collected in evidence.notices:
        e = collected.event
        if not isinstance(e, Decided) or e.notice_id != notice_id or not (digest := digest_named(e)):
            continue
        for record in evidence.notices:
            answer = record.event
            if not isinstance(answer, Decided) or answer.notice_id != digest or not answer.caused_by:
                continue
            due = dues.get(answer.caused_by[0].offset)
            if due is None or due.offset < collected.offset:
                continue
            if stopped_at is not None and stopped_at < due.offset:
                break
            yield due
            yield record
            if answer.answer != "postpone":
                break


def _deliveries(notice_id: str, digests: list[Record], evidence: Evidence) -> Iterator[Record]:
    """What stands on `deliveries` of this notice, and of the digests that carried it; a repeat is left out."""
    decided = {r.offset for r in digests if isinstance(r.event, Decided)}
    mine, seen = set[str](), set[str]()
    for record in evidence.deliveries:
        e = record.event
        if isinstance(e, DeliveryRequested) and (
            e.notice_id == notice_id or any(c.topic == NOTICES and c.offset in decided for c in e.caused_by)
        ):
            mine.add(e.delivery_id)
        if e is not None and e.event_id not in seen and getattr(e, "delivery_id", "") in mine:
            seen.add(e.event_id)
            yield record


def _waits(notice: Notice | None, digests: list[Record]) -> Iterator[dict[str, Any]]:
    for step in notice.steps.values() if notice else ():
        if step.state in ("waiting", "asked") or (step.state == "collected" and not digests):
            yield {"what": step.what, "step": step.step, "state": step.state, "due_at": step.due_at}
