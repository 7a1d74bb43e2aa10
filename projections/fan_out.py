"""The fold of `notice-requests`: from what an alert committed, or somebody asked for, to one notice a person (rule 5).

A commit counts only if its run is the newest start of its shard and its number the next: zombies, late copies and
repeats change nothing. The audience of an open condition is kept, so that updates and the end reach exactly those who
were told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from projections.forwarding import check_lanes
from projections.outgoing import Later, Outgoing, Refused, out_of_place, source_of
from topics.catalogue import MAX_RECORD_BYTES, NOTICES
from topics.events import (
    AlertCommitted,
    AlertMoved,
    AlertStarted,
    Effect,
    Lane,
    NoticeEnded,
    NoticeRaised,
    NoticeRequested,
    NoticeResolved,
    NoticeUpdated,
    Record,
)
from topics.ids import derived_id, direct_notice_id
from topics.json_text import checked, members

LARGEST_BODY = MAX_RECORD_BYTES - 128 * 1024  # what a notice adds to it stays below the broker's limit

Audience = Sequence[tuple[str, str]]  # (user, notice id)
Receiver = tuple[str, bool, tuple[Lane, ...]]  # user, whether that is one who reads an inbox, forwards
Part = tuple[int, Callable[[int], Outgoing]]


@dataclass(frozen=True, slots=True)
class Run:
    """The newest run of a shard, the number of its last accepted commit, and the parts of a split commit that wait."""

    run: int
    number: int
    shards: int
    held: tuple[AlertCommitted, ...] = ()


@dataclass(slots=True)
class Desk:
    """What `apply` needs: runs by (alert, shard), -1 for the alert's number of shards; audiences by (source, key)."""

    runs: dict[tuple[str, int], Run] = field(default_factory=dict)
    conditions: dict[tuple[str, str], Audience] = field(default_factory=dict)
    touched: set[tuple[str, str]] = field(default_factory=set)


def apply(desk: Desk, record: Record) -> Sequence[Outgoing]:
    """Fold one record; the notices that have to be said because of it, each made when it is asked for.

    Refused for an event that has no place on this topic.
    """
    match record.event:
        case AlertStarted() as e:
            layout = desk.runs.get((e.alert, -1))
            if e.shards == (layout.shards if layout else 1):
                desk.runs[e.alert, e.shard] = Run(record.offset, 0, e.shards)
            return []
        case AlertMoved() as e:
            for alert, shard in list(desk.runs):
                if alert == e.alert:
                    desk.runs[alert, shard] = Run(-1, 0, e.shards)
            desk.runs[e.alert, -1] = Run(-1, 0, e.shards)
            return []
        case AlertCommitted() as e:
            return _committed(desk, record, e)
        case NoticeRequested() as e:
            return _requested(desk, record, e)
        case NoticeResolved() as e:
            return Later([_ended(desk, record, (f"direct:{e.subject}", e.key), b"")])
        case _:
            raise out_of_place(record)


def conditions_of(record: Record) -> list[tuple[str, str]]:
    """The (source, key) pairs that `apply` of this record looks at."""
    match record.event:
        case AlertCommitted() as e:
            return [(f"alert:{e.alert}", effect.key) for effect in e.effects]
        case NoticeRequested() as e if e.key is not None:
            return [(f"direct:{e.subject}", e.key)]
        case NoticeResolved() as e:
            return [(f"direct:{e.subject}", e.key)]
    return []


def _committed(desk: Desk, record: Record, e: AlertCommitted) -> Sequence[Outgoing]:
    run = desk.runs.get((e.alert, e.shard))
    if run is None or run.run != e.run or e.number <= run.number:
        return []  # a zombie's, or a repeat
    if e.number != run.number + 1:
        msg = f"commit {e.number} of run {e.run} without {run.number + 1}: the chain is broken until the next start"
        raise Refused(msg)
    for effect in e.effects:
        said(effect)
        check_lanes(effect.lanes)
    held = (*run.held, e)
    desk.runs[e.alert, e.shard] = Run(run.run, e.number, run.shards, held if e.more else ())
    if e.more:
        return []
    effects = [effect for part in held for effect in part.effects]
    return Later([_effect(desk, record, e.alert, effect, index) for index, effect in enumerate(effects)])


def _effect(desk: Desk, record: Record, alert: str, effect: Effect, index: int) -> Part:
    at = (f"alert:{alert}", effect.key)
    if effect.op == "resolve":
        return _ended(desk, record, at, said(effect))
    text = said(effect)
    if effect.op == "update":
        audience = desk.conditions.get(at, ())
        return len(audience), lambda i: _updated(record, *audience[i], effect, index, text)
    again = effect.op == "raise" and at in desk.conditions
    told = [] if again else receivers(effect.lanes)
    if effect.op == "raise" and not again:
        desk.conditions[at] = tuple((user, effect.notice_id) for user, _, _ in told)
        desk.touched.add(at)
    source = source_of(record)

    def raised(i: int) -> Outgoing:
        user = told[i][0]
        notice = partial(
            raised_for,
            told[i],
            source,
            effect.notice_id,
            kind="condition" if effect.op == "raise" else "event",
            alert=alert,
            config_id=effect.config_id,
            key=effect.key,
            entity=(effect.entity_type, effect.entity_id),
            severity=effect.severity,
            forward=effect.forward,
            body=text,
        )
        return Outgoing(NOTICES, user, notice, (user, effect.notice_id))

    return len(told), raised


def said(effect: Effect) -> bytes:
    """The notice's own part of what an alert said. Refused if there is none."""
    try:
        text = members(effect.body.decode())["notice"]
        members(text)
    except (ValueError, KeyError) as error:
        raise Refused(f"the body of {effect.op} {effect.key!r} holds no notice") from error
    return text.encode()


def _requested(desk: Desk, record: Record, e: NoticeRequested) -> Sequence[Outgoing]:
    try:
        checked(e.body, an_object=True)
    except ValueError as error:
        raise Refused("the body is no JSON object") from error
    check_lanes(e.lanes)
    if len(e.body) > LARGEST_BODY:
        raise Refused(f"a body of {len(e.body)} bytes leaves no room for a notice")
    told = told_of(e.users, e.lanes)
    if e.key is not None:
        at = (f"direct:{e.subject}", e.key)
        if at in desk.conditions:
            return []
        desk.conditions[at] = Later([(len(told), lambda i: (told[i][0], _direct_id(e, told[i][0])))])
        desk.touched.add(at)
    return _direct(e, source_of(record), told)


def direct_notices(e: NoticeRequested, source: dict[str, Any]) -> list[NoticeRaised]:
    """The notices that a direct request asks for; `source` is the producer, occurred_at and caused_by of each."""
    return [_directly(e, source, told, _direct_id(e, told[0])) for told in told_of(e.users, e.lanes)]


def told_of(users: Sequence[str], lanes: tuple[Lane, ...]) -> list[Receiver]:
    """Who gets a notice of their own, of those whom a direct request names and those to whom it is forwarded."""
    if not lanes:
        return [(user, True, ()) for user in dict.fromkeys(users)]
    return receivers((*(Lane("", "inbox", "recipient", user, 0) for user in users), *lanes))


def _direct_id(e: NoticeRequested, user: str) -> str:
    return direct_notice_id(e.subject, e.request_key, user)


def _direct(e: NoticeRequested, source: dict[str, Any], told: list[Receiver]) -> Sequence[Outgoing]:
    def raised(i: int) -> Outgoing:
        user = told[i][0]
        notice_id = _direct_id(e, user)
        return Outgoing(NOTICES, user, partial(_directly, e, source, told[i], notice_id), (user, notice_id))

    return Later([(len(told), raised)])


def _directly(e: NoticeRequested, source: dict[str, Any], receiver: Receiver, notice_id: str) -> NoticeRaised:
    return raised_for(
        receiver,
        source,
        notice_id,
        kind="direct",
        alert=None,
        config_id=None,
        key=e.key,
        entity=(e.entity_type, e.entity_id),
        severity=e.severity,
        forward=e.forward,
        body=e.body,
    )


def receivers(lanes: tuple[Lane, ...]) -> list[Receiver]:
    """Who gets a notice of their own: (user, reads an inbox, that user's forwards).

    Raw addresses go by `channel:address`.
    """
    people: dict[str, list[Lane]] = {}
    places: dict[str, list[Lane]] = {}
    for lane in lanes:
        if lane.kind == "recipient":
            mine = people.setdefault(lane.value, [])
            if lane.channel != "inbox":
                mine.append(lane)
        else:
            places.setdefault(f"{lane.channel}:{lane.value}", []).append(lane)
    return [(u, True, tuple(found)) for u, found in people.items()] + [
        (a, False, tuple(found)) for a, found in places.items()
    ]


def raised_for(
    receiver: Receiver,
    source: dict[str, Any],
    notice_id: str,
    *,
    kind: str,
    alert: str | None,
    config_id: str | None,
    key: str | None,
    entity: tuple[str | None, str | None],
    severity: str,
    forward: str,
    body: bytes,
) -> NoticeRaised:
    """One person's notice; `source` as for `direct_notices`."""
    user, inbox, lanes = receiver
    return NoticeRaised(
        event_id=derived_id("raised", notice_id, user),
        **source,
        notice_id=notice_id,
        user=user,
        inbox=inbox,
        kind=kind,
        alert=alert,
        config_id=config_id,
        key=key,
        entity_type=entity[0],
        entity_id=entity[1],
        severity=severity,
        lanes=lanes,
        forward=forward,
        body=body,
    )


def _updated(record: Record, user: str, notice_id: str, effect: Effect, index: int, text: bytes) -> Outgoing:
    event = NoticeUpdated(
        event_id=derived_id("updated", notice_id, user, record.partition, record.offset, index),
        **source_of(record),
        notice_id=notice_id,
        user=user,
        cause_offset=record.offset,
        cause_index=index,
        severity=effect.severity,
        push=True,
        body=text,
    )
    return Outgoing(NOTICES, user, event)


def _ended(desk: Desk, record: Record, at: tuple[str, str], body: bytes) -> Part:
    audience = desk.conditions.pop(at, ())
    desk.touched.add(at)
    source = source_of(record)

    def ended(i: int) -> Outgoing:
        user, notice_id = audience[i]
        identity = derived_id("ended", notice_id, user)
        event = NoticeEnded(event_id=identity, **source, notice_id=notice_id, user=user, body=body)
        return Outgoing(NOTICES, user, event)

    return len(audience), ended
