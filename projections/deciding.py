"""How an asked step is decided (rules 2 and 4): pure, so the same question with the same looks has the same answer.

In this order: a silence, an opt-out, no address, a longer delay, quiet hours, the throttle, a digest; else it is
delivered. `override` passes opt-outs and quiet hours only. All that was looked at stands in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from projections.delivery import DELIVERY_DEADLINE_MS
from projections.digests import digest_id
from projections.forwarding import decided_id, due_id, is_first
from projections.notice import Notice, Step
from projections.outgoing import Outgoing
from projections.policy import SHORT, Policy, Preferences, policy_of, preferences_of, read_object
from projections.quiet_hours import quiet_until, zone_of
from topics.catalogue import NOTICES
from topics.events import Cause, Decided
from topics.json_text import dumps, encoded, joined

FINAL = ("sent", "failed", "cancelled")
LOOK_AGAIN_MS = 10_000
READERS = 1_024  # kept as read, since many questions are of the same few people


@dataclass(frozen=True, slots=True)
class Silence:
    """Forwards that match all fields that are given are skipped until `until` (ms)."""

    silence_id: str
    alert: str | None
    entity_type: str | None
    entity_id: str | None
    user: str | None
    until: int

    def covers(self, notice: Notice, at: int) -> bool:
        """Whether a forward of this notice that is due at `at` is to be skipped."""
        return (
            at < self.until
            and self.alert in (None, notice.alert)
            and self.user in (None, notice.user)
            and (
                self.entity_type is None or (self.entity_type, self.entity_id) == (notice.entity_type, notice.entity_id)
            )
        )


@dataclass(frozen=True, slots=True)
class Question:
    """An asked step with what is looked at to decide it.

    `recipient`: its recipient's body text, null where there is none. `gathered`: how many notices a digest would carry.
    `overrides`: one of them, or the notice itself, passes opt-outs and quiet hours.
    `told`: for `resolved`, what became of the deliveries that told of the condition (`waiting` where nothing did yet).
    """

    notice: Notice
    step: Step
    partition: int
    recipient: str | None = None
    gathered: int = 0
    overrides: bool = False
    told: tuple[str, ...] = ()


Scope = tuple[str, str, str, str, str]  # user, config, channel, kind and value: what one throttle counts together


def scope_of(notice: Notice, step: Step) -> Scope:
    """Where this step's deliveries are counted."""
    return notice.user, step.scope, step.channel, step.kind, step.value


@dataclass(slots=True)
class Looks:
    """What all questions of one transaction look at; deliveries decided on the way are added to `told_at`."""

    silences: Sequence[Silence] = ()
    told_at: dict[Scope, list[int]] = field(default_factory=dict)  # when what was delivered, or is asked now, was due
    open_digests: set[tuple[str, str]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Verdict:
    answer: str
    reason: str
    until: int | None = None
    digest: str = ""


@dataclass(frozen=True, slots=True)
class _Reader:
    """Who would get the message, and what that person wants."""

    preferences: Preferences
    zone: str
    address: str
    name: str
    defaults: str = ""  # the recipient's preferences as written, where they count


def decide(questions: Iterable[Question], looks: Looks, producer: str, occurred_at: int) -> list[tuple[int, Outgoing]]:
    """(offset of the question, its answer), in the order in which they were asked."""
    out = []
    for question in sorted(questions, key=lambda q: q.step.asked_offset or 0):
        reader = _reader(question)
        seen: dict[str, str] = {}
        verdict = _verdict(question, reader, looks, seen)
        if verdict.answer == "deliver":
            looks.told_at.setdefault(scope_of(question.notice, question.step), []).append(question.step.asked_at or 0)
        if verdict.digest:
            looks.open_digests.add((question.notice.user, verdict.digest))
        out.append((question.step.asked_offset or 0, _decided(question, reader, verdict, seen, producer, occurred_at)))
    return out


def _verdict(q: Question, reader: _Reader, looks: Looks, seen: dict[str, str]) -> _Verdict:
    notice, step, at = q.notice, q.step, q.step.asked_at or 0
    policy, wish = policy_of(notice.forward), reader.preferences.wish(notice.alert, step.channel)
    passes = q.overrides
    if step.what == "digest":
        seen["gathered"] = str(q.gathered)
        if not q.gathered:
            return _Verdict("skip", "empty")
    if step.what == "resolved" and (found := _not_told(q, at, seen)):
        return found
    if silence := next((s for s in looks.silences if s.covers(notice, at)), None):
        seen["silence"] = dumps({"id": silence.silence_id, "until": silence.until})
        return _Verdict("skip", "silenced")
    if wish.enabled is False and not passes:
        return _Verdict("skip", "opt_out")
    if not reader.address:
        return _Verdict("skip", "no_address")
    wanted_at = notice.raised_at + (wish.after_ms or 0)
    if step.what == "forward" and step.kind == "recipient" and is_first(step.step, step.channel) and wanted_at > at:
        return _Verdict("postpone", "delay", wanted_at)
    if reader.preferences.quiet:
        seen["time_zone"] = dumps(reader.zone)
    until = quiet_until(reader.preferences.quiet, zone_of(reader.zone), at)
    if until is not None and not passes:
        return _Verdict("postpone", "quiet_hours", until)
    if step.what == "resolved":
        return _Verdict("deliver", "resolved")
    return _collected(q, policy, wish.digest_ms, looks, seen) or _Verdict(
        "deliver", "digest" if step.what == "digest" else "unread"
    )


def _collected(
    q: Question, policy: Policy, wanted_digest_ms: int | None, looks: Looks, seen: dict[str, str]
) -> _Verdict | None:
    """Throttled, or to be collected for a digest; what is in an open throttle's digest is overtaken by nothing."""
    notice, step, at = q.notice, q.step, q.step.asked_at or 0
    mine = digest_id(notice.user, step, step.scope)
    digest_ms = policy.digest_ms if wanted_digest_ms is None else wanted_digest_ms
    throttle = policy.throttle
    if throttle and step.scope:
        recent = sorted(t for t in looks.told_at.get(scope_of(notice, step), ()) if t > at - throttle.per_ms)
        found: dict[str, object] = {"told": len(recent), "max": throttle.most, "per_ms": throttle.per_ms}
        waits = step.what != "digest" and (notice.user, mine) in looks.open_digests
        seen["throttle"] = dumps(found | ({"others_wait": True} if waits else {}))
        if len(recent) >= throttle.most:
            until = recent[-throttle.most] + throttle.per_ms
            return _Verdict("postpone", "throttle", until, "" if step.what == "digest" else mine)
        if waits and not digest_ms:
            return _Verdict("postpone", "throttle", at, mine)
    if step.what == "digest" or not digest_ms:
        return None
    whose = mine if wanted_digest_ms is None else digest_id(notice.user, step, "")
    return _Verdict("postpone", "digest", at + digest_ms, whose)


def _not_told(q: Question, at: int, seen: dict[str, str]) -> _Verdict | None:
    """Only who was told of a condition is told that it is over; what is being sent is waited for, ever longer."""
    seen["told"] = dumps(q.told)
    if "sent" in q.told:
        return None
    if any(outcome not in FINAL for outcome in q.told):
        return _Verdict("postpone", "delivery_pending", at + max(LOOK_AGAIN_MS, at - (q.notice.ended_at or at)))
    return _Verdict("skip", "not_told")


def _reader(q: Question) -> _Reader:
    step = q.step
    if step.kind != "recipient":
        return _Reader(Preferences(), "", step.value, "")
    said = q.recipient or "", step.asked_preferences, step.channel
    return _person(*said) if len(said[0]) + len(said[1]) <= SHORT else _person.__wrapped__(*said)


@lru_cache(READERS)
def _person(recipient: str, asked_preferences: str, channel: str) -> _Reader:
    """One's own preferences, or else the recipient's defaults as a whole."""
    person = read_object(recipient)
    defaults = "" if read_object(asked_preferences) else dumps(person.get("preferences"))
    own, name = preferences_of(defaults or asked_preferences), person.get("name")
    addresses, zone = person.get("addresses"), person.get("time_zone")
    address = addresses.get(channel) if isinstance(addresses, dict) else None
    return _Reader(
        preferences=own,
        zone=own.time_zone or (zone if isinstance(zone, str) else ""),
        address=address if isinstance(address, str) else "",
        name=name if isinstance(name, str) else "",
        defaults="" if defaults == "null" else defaults,
    )


def _decided(
    q: Question, reader: _Reader, verdict: _Verdict, seen: dict[str, str], producer: str, occurred_at: int
) -> Outgoing:
    notice, step = q.notice, q.step
    asked_at = step.asked_at or 0
    looked_at = {
        "preferences": step.asked_preferences or "{}",  # as they were written
        "address": dumps(reader.address),
        "asked_at": str(asked_at),
        **({"defaults": reader.defaults} if reader.defaults else {}),
        **seen,
    }
    said = {
        "address": dumps(reader.address),
        "name": dumps(reader.name),
        "deadline_at": str(asked_at + DELIVERY_DEADLINE_MS),
        "looked_at": joined(looked_at),
    }
    if verdict.digest:
        said["digest"] = dumps(verdict.digest)
    by_end = step.what == "resolved" and step.number == 0  # asked by the end of the condition, not by a Due
    due = "" if by_end else due_id(notice.user, notice.notice_id, step)
    event = Decided(
        event_id=decided_id(notice.user, notice.notice_id, step),
        producer=producer,
        occurred_at=occurred_at,
        caused_by=(Cause(due, NOTICES, q.partition, step.asked_offset or 0),),
        user=notice.user,
        notice_id=notice.notice_id,
        what=step.what,
        step=step.step,
        number=step.number,
        answer=verdict.answer,
        reason=verdict.reason,
        until=verdict.until,
        body=encoded(joined(said)),
    )
    return Outgoing(NOTICES, notice.user, event)
