"""One record of a notice's story in words: a sentence for people, and what it said for programs.

A sentence names nobody but the notice's own receiver; who else was told stands in the details, which `private` cuts.
What can't be read any more, because its key is gone, is "erased".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from projections.fan_out import receivers
from projections.policy import read_object
from projections.words import ERASED, clock, delay, reason, said
from topics.events import (
    AlertCommitted,
    AlertConfigured,
    AlertStarted,
    Cause,
    Decided,
    DeliveryCancelled,
    DeliveryFailed,
    DeliveryRequested,
    DeliveryRetried,
    DeliverySent,
    Due,
    Effect,
    EntityChanged,
    Lane,
    NoticeEnded,
    NoticeMarked,
    NoticeRaised,
    NoticeRequested,
    NoticeResolved,
    NoticeUpdated,
    Record,
)
from topics.evidence import Evidence, effects_of

Words = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened, where it stands on the log. `at`: the log's time, ms. `told`: a sentence."""

    at: int
    topic: str
    partition: int
    offset: int
    event: str
    event_id: str
    told: str
    details: dict[str, Any]


def moment(record: Record, notice_id: str, evidence: Evidence) -> Moment:
    """What `record` is to this notice."""
    told, details = _words(record, notice_id, evidence)
    event = record.event
    return Moment(
        at=record.timestamp,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        event=type(event).__name__,
        event_id=event.event_id if event else "",
        told=told,
        details={name: value for name, value in details.items() if value is not None},
    )


def private(found: Moment, user: str, sees_entity: Callable[[str, dict[str, Any]], bool]) -> Moment:
    """What its receiver may know: of the others only how many they are, of an entity only what they may read."""
    details = dict(found.details)
    details.pop("instance", None)
    if "receivers" in details:
        details["others"] = sum(r["user"] != user for r in details["receivers"])
        details["receivers"] = [r for r in details["receivers"] if r["user"] == user]
    for name in ("config", "entity"):
        part = details.get(name)
        if isinstance(part, dict) and isinstance(value := part.get("value"), dict):
            if name == "config":
                shown: Any = {k: v for k, v in value.items() if k in ("name", "metric", "forward", "enabled")}
            else:
                shown = value if sees_entity(part["type"], value) else None
            details[name] = {k: v for k, v in part.items() if k != "value"} | ({"value": shown} if shown else {})
    return replace(found, details=details)


def _words(record: Record, notice_id: str, evidence: Evidence) -> Words:
    match record.event:
        case AlertConfigured() as e:
            what = f"config {e.config_id} of alert {e.name} was set: version {e.version}"
            return what, {"config": {"id": e.config_id, "version": e.version, "value": said(e)}}
        case EntityChanged() as e:
            version = "" if e.version is None else f": version {e.version}"
            about = {"type": e.entity_type, "id": e.entity_id, "version": e.version, "value": said(e)}
            return f"{e.entity_type} {e.entity_id} was {e.op}{version}", {"entity": about}
        case AlertStarted() as e:
            return (
                f"run {record.offset} of alert {e.alert} began",
                {"run": record.offset, "shard": e.shard, "shards": e.shards, "instance": e.instance},
            )
        case AlertCommitted() as e:
            return _commit(e, notice_id, evidence)
        case NoticeRequested() as e:
            to = _receivers((*(Lane("", "inbox", "recipient", u, 0) for u in e.users), *e.lanes))
            people = f"{len(to)} receiver{'s' if len(to) > 1 else ''}"
            return (
                f"{e.subject} asked for a notice to {people}" + (f", condition {e.key}" if e.key else ""),
                {"subject": e.subject, "request_key": e.request_key, "key": e.key, "receivers": to},
            )
        case NoticeResolved() as e:
            return f"{e.subject} said that condition {e.key} is over", {"subject": e.subject, "key": e.key}
        case NoticeRaised() | NoticeUpdated() | NoticeEnded() | NoticeMarked():
            return _notice(record)
        case Due() | Decided():
            return _decision(record, notice_id)
    return _delivery(record)


def _commit(e: AlertCommitted, notice_id: str, evidence: Evidence) -> Words:
    effects = effects_of(e, notice_id)
    about = {"alert": e.alert, "shard": e.shard, "run": e.run, "commit": e.number}
    if not effects:
        return f"the last part of commit {e.number} of alert {e.alert}, run {e.run}", about
    effect = effects[0]
    verb = {"raise": "raised", "update": "updated", "resolve": "resolved", "event": "told"}.get(effect.op, effect.op)
    by_value = said(effect)
    parts = by_value if isinstance(by_value, dict) else {}
    details = about | {
        "op": effect.op,
        "key": effect.key,
        "receivers": _receivers(effect.lanes) if effect.lanes else None,
        "forward": read_object(effect.forward) or None,
        "config": _config(effect, evidence, parts.get("config", ERASED if by_value == ERASED else None)),
        "entity": _entity(effect, evidence, parts.get("entity", ERASED if by_value == ERASED else None)),
    }
    return f"alert {e.alert} {verb} {effect.key}: commit {e.number} of its run {e.run}", details


def _receivers(lanes: tuple[Lane, ...]) -> list[dict[str, Any]]:
    return [{"user": user, "inbox": inbox, "lanes": [_lane(x) for x in mine]} for user, inbox, mine in receivers(lanes)]


def _lane(lane: Lane) -> dict[str, Any]:
    return {
        "channel": lane.channel,
        "kind": lane.kind,
        "value": lane.value,
        "step": lane.step,
        "after_ms": lane.after_ms,
    }


def _config(effect: Effect, evidence: Evidence, value: Any) -> dict[str, Any]:
    cause = next((c for c in effect.caused_by if c.topic == "alert-configs"), None)
    record = evidence.cause(cause) if cause else None
    version = record.event.version if record and isinstance(record.event, AlertConfigured) else None
    return {"id": effect.config_id, "version": version, "value": value} | _place(cause)


def _entity(effect: Effect, evidence: Evidence, value: Any) -> dict[str, Any] | None:
    if effect.entity_type is None:
        return None
    cause = next((c for c in effect.caused_by if c.topic.startswith("entities.")), None)
    record = evidence.cause(cause) if cause else None
    version = None
    if record and isinstance(record.event, EntityChanged):
        value = said(record.event) if value is None else value
        version = record.offset if record.event.version is None else record.event.version
    return {"type": effect.entity_type, "id": effect.entity_id, "version": version, "value": value} | _place(cause)


def _place(cause: Cause | None) -> dict[str, Any]:
    return asdict(cause) if cause else {}


def _notice(record: Record) -> Words:
    e = record.event
    match e:
        case NoticeRaised():
            ways = [f"by {x.channel} {delay(x.after_ms)}" for x in e.lanes]
            ways = (["in the inbox"] if e.inbox else []) + ways
            return f"told {e.user}: {', '.join(ways)}", {"lanes": [_lane(x) for x in e.lanes], "said": said(e)}
        case NoticeUpdated():
            return f"it was updated, severity {e.severity}", {"severity": e.severity, "said": said(e)}
        case NoticeMarked():
            until = f" until {clock(e.until)}" if e.until is not None else ""
            many = " with all before it" if e.up_to is not None else ""
            return f"{e.user} marked it as {e.mark}{until}{many}", {"mark": e.mark, "until": e.until, "cmd": e.cmd}
    return "the condition was over", {"said": (said(e) or None) if isinstance(e, NoticeEnded) else None}


def _decision(record: Record, notice_id: str) -> Words:
    e = record.event
    if not isinstance(e, Due | Decided):
        raise TypeError(f"{type(e).__name__} is no decision")
    whose = (
        "the digest by " if e.what == "digest" else {"repeat": "again by ", "resolved": "its end by "}.get(e.what, "")
    )
    name = whose + (e.step or "snooze")
    about: dict[str, Any] = {"what": e.what, "step": e.step, "number": e.number}
    if e.notice_id != notice_id:
        about["digest"] = e.notice_id
    if isinstance(e, Due):
        return ("the snooze was over" if e.what == "snooze" else f"{name}: due"), about | {"due_at": e.due_at}
    answer = {"deliver": "to be sent", "skip": "not to be sent"}.get(e.answer, f"not before {clock(e.until)}")
    told = said(e)
    if isinstance(told, dict):
        about |= {k: told[k] for k in ("address", "looked_at", "digest", "deadline_at") if k in told}
    else:
        about["looked_at"] = told
    return f"{name}: {answer} ({reason(e.reason)})", about | {
        "answer": e.answer, "reason": e.reason, "until": e.until,
    }  # fmt: skip


def _delivery(record: Record) -> Words:
    e = record.event
    text = said(e) if hasattr(e, "body") else {}
    answer = text if isinstance(text, str) else str(text.get("answer", ""))
    match e:
        case DeliveryRequested():
            address = text if isinstance(text, str) else str(text.get("address", ""))
            about = {"delivery_id": e.delivery_id, "step": e.step, "channel": e.channel, "address": address}
            if isinstance(text, dict) and "count" in text:
                about["count"] = text["count"]
            return f"a message by {e.channel} to {address} was asked for", about | {
                "message_id": e.message_id, "deadline_at": e.deadline_at,
            }  # fmt: skip
        case DeliverySent():
            return f"sent with attempt {e.attempt}: {answer}", {"delivery_id": e.delivery_id, "answer": answer}
        case DeliveryRetried():
            told = f"attempt {e.attempt} failed: {answer}; the next not before {clock(e.next_at)}"
            return told, {"delivery_id": e.delivery_id, "answer": answer, "next_at": e.next_at}
        case DeliveryFailed():
            told = f"given up with attempt {e.attempt} ({reason(e.reason)}): {answer}"
            return told, {"delivery_id": e.delivery_id, "answer": answer, "reason": e.reason}
        case DeliveryCancelled():
            return f"the message is recalled ({reason(e.reason)})", {
                "delivery_id": e.delivery_id, "reason": e.reason,
            }  # fmt: skip
    return type(e).__name__, {}
