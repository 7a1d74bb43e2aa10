"""What waits for a notice, how a Due asks, how an answer is decided and what reading it back does (rules 2, 4, 5, 8).

Read before the Due that delivers: never forwarded. Read after it: forwarded. `decide` may look at anything, so its
answer counts only once it stands on the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from projections.notice import Notice, Step
from projections.outgoing import Outgoing, Refused
from topics.catalogue import DELIVERIES, NOTICES
from topics.events import Cause, Decided, DeliveryCancelled, DeliveryRequested, Due, Lane, Record
from topics.ids import derived_id
from topics.json_text import dumps, encoded, joined, members, parse

DELIVERY_DEADLINE_MS = 24 * 3_600_000
LONGEST_DELAY_MS = 3653 * 24 * 3_600_000
LATEST_MS = 1 << 53  # what every JSON reader can still count


@dataclass(frozen=True, slots=True)
class Question:
    """An asked step with what it needs to be decided.

    `recipient` is the recipient's body text, null where there is none.
    """

    user: str
    notice_id: str
    partition: int
    alert: str | None
    severity: str
    step: Step
    recipient: str | None


def steps_of(lanes: tuple[Lane, ...], raised_at: int) -> dict[str, Step]:
    """The forwards of a new notice; `due_at` = log time of NoticeRaised + delay."""
    return {
        f"forward/{lane.step}": Step(
            "forward", lane.step, lane.channel, lane.kind, lane.value, raised_at + lane.after_ms
        )
        for lane in lanes
        if lane.channel != "inbox"
    }


def ask(step: Step, due: Due, record: Record, preferences: str) -> bool:
    """Whether this Due counts: the current number, not before its time.

    Then the question stands, with what stood before it.
    """
    if step.state != "waiting" or due.number != step.number or record.timestamp < step.due_at:
        return False
    step.state = "asked"
    step.asked_offset, step.asked_at, step.asked_preferences = record.offset, record.timestamp, preferences
    return True


def stop(notice: Notice, record: Record, reason: str) -> list[Outgoing]:
    """First read, archived or ended: what waits is over for good.

    What was asked is answered as it stood, what is being sent is recalled.
    """
    if notice.stopped:
        return []
    notice.stopped = True
    out = []
    for step in notice.steps.values():
        if step.what != "forward":
            continue
        if step.state == "waiting":
            step.state, step.reason = "skipped", reason
        elif step.state == "delivered":
            out.append(_recall(notice, step, record, reason))
    return out


def snooze_step(notice: Notice, until: int) -> None:
    """A snooze sets anew what waits.

    What is asked already only keeps the later time for a postponed answer (`hold`).
    """
    for step in notice.steps.values():
        if step.what == "forward" and step.state == "waiting":
            step.number, step.due_at = step.number + 1, max(step.due_at, until)
    old = notice.steps.get("snooze/")
    notice.steps["snooze/"] = Step(
        "snooze", "", "inbox", "recipient", notice.user, until, number=old.number + 1 if old else 1
    )


def answer(notice: Notice, step: Step, decided: Decided, record: Record) -> list[Outgoing]:
    """The decision was read back: only now it has effects. Refused for a body that is no decision's."""
    if decided.answer == "deliver":
        request = _request(notice, step, decided, record)
        step.state, step.reason = "delivered", decided.reason
        return [request]
    if decided.answer == "postpone" and not notice.stopped:
        step.number, step.due_at, step.state, step.reason = (
            step.number + 1,
            max(decided.until or 0, notice.hold),
            "waiting",
            decided.reason,
        )
        return []
    step.state, step.reason = "skipped", decided.reason if decided.answer == "skip" else "stopped"
    return []


def decide(question: Question, producer: str, occurred_at: int) -> Outgoing:
    """The answer to an asked step, with all it looked at. Pure: the same question and looks give the same answer."""
    step = question.step
    preferences = _object(parse(step.asked_preferences or "{}"))
    defaults = _object(parse(question.recipient or "{}"))
    address = step.value if step.kind == "address" else _address(defaults, step.channel)
    if _opted_out(preferences or _object(defaults.get("preferences")), question.alert, step.channel):
        reply, reason = "skip", "opt_out"
    elif not address:
        reply, reason = "skip", "no_address"
    else:
        reply, reason = "deliver", "unread"
    name = defaults.get("name") if step.kind == "recipient" else ""
    asked_at = step.asked_at or 0
    looked_at = {
        "preferences": step.asked_preferences or "{}",  # as they were written
        "address": dumps(address),
        "asked_at": str(asked_at),
    }
    said = {
        "address": dumps(address),
        "name": dumps(name if isinstance(name, str) else ""),
        "deadline_at": str(asked_at + DELIVERY_DEADLINE_MS),
        "looked_at": joined(looked_at),
    }
    event = Decided(
        event_id=decided_id(question.user, question.notice_id, step),
        producer=producer,
        occurred_at=occurred_at,
        caused_by=(
            Cause(due_id(question.user, question.notice_id, step), NOTICES, question.partition, step.asked_offset or 0),
        ),
        user=question.user,
        notice_id=question.notice_id,
        what=step.what,
        step=step.step,
        number=step.number,
        answer=reply,
        reason=reason,
        until=None,
        body=encoded(joined(said)),
    )
    return Outgoing(NOTICES, question.user, event)


def decided_id(user: str, notice_id: str, step: Step) -> str:
    """The id of the decision on one question: notice, user, step, number."""
    return derived_id("decided", notice_id, user, step.what, step.step, step.number)


def due_id(user: str, notice_id: str, step: Step) -> str:
    """The id of the Due for what waits under this number and time."""
    return derived_id("due", notice_id, user, step.what, step.step, step.number, step.due_at)


def delivery_id(user: str, notice_id: str, step: Step) -> str:
    """The one delivery that an answered question asks for."""
    return derived_id("delivery", notice_id, user, step.what, step.step, step.number)


def answer_body(decided: Decided) -> tuple[dict[str, Any], int]:
    """What a decision says, and the deadline of what it delivers. Refused for a body that is no decision's."""
    try:
        said = parse(decided.body.decode())
        deadline_at = said["deadline_at"]
    except (ValueError, KeyError, TypeError) as error:
        msg = "the body is no decision's"
        raise Refused(msg) from error
    if not isinstance(deadline_at, int) or not 0 <= deadline_at < LATEST_MS:
        msg = "the decision names no deadline"
        raise Refused(msg)
    return said, deadline_at


def check_lanes(lanes: tuple[Lane, ...]) -> None:
    """Refused for a delay that nobody means: negative, or beyond ten years."""
    for lane in lanes:
        if not 0 <= lane.after_ms <= LONGEST_DELAY_MS:
            msg = f"a forward after {lane.after_ms} ms"
            raise Refused(msg)


def _request(notice: Notice, step: Step, decided: Decided, record: Record) -> Outgoing:
    said, deadline_at = answer_body(decided)
    identity = delivery_id(notice.user, notice.notice_id, step)
    text = members(notice.body)
    content: dict[str, str] = {
        "address": dumps(said.get("address")),
        "name": dumps(said.get("name") or ""),
        "severity": dumps(notice.severity),
        "alert": dumps(notice.alert),
        "notice_id": dumps(notice.notice_id),
        "user": dumps(notice.user),
        "raised_at": str(notice.raised_at),
        **{k: text[k] for k in ("title", "text", "link", "data") if k in text},
    }
    event = DeliveryRequested(
        event_id=derived_id("requested", identity),
        producer=decided.producer,
        occurred_at=decided.occurred_at,
        caused_by=(record.cause,),
        delivery_id=identity,
        user=notice.user,
        notice_id=notice.notice_id,
        step=step.step,
        channel=step.channel,
        message_id=f"<{identity}@tidings>",
        deadline_at=deadline_at,
        body=encoded(joined(content)),
    )
    return Outgoing(DELIVERIES, notice.user, event)


def _recall(notice: Notice, step: Step, record: Record, reason: str) -> Outgoing:
    event = record.event
    identity = delivery_id(notice.user, notice.notice_id, step)
    cancelled = DeliveryCancelled(
        event_id=derived_id("cancelled", identity),
        producer=event.producer if event else "",
        occurred_at=event.occurred_at if event else 0,
        caused_by=(record.cause,),
        delivery_id=identity,
        user=notice.user,
        notice_id=notice.notice_id,
        reason=reason,
    )
    return Outgoing(DELIVERIES, notice.user, cancelled)


def _address(recipient: dict[str, Any], channel: str) -> str:
    found = _object(recipient.get("addresses")).get(channel)
    return found if isinstance(found, str) else ""


def _opted_out(preferences: dict[str, Any], alert: str | None, channel: str) -> bool:
    per_alert = _object(_object(preferences.get("alerts")).get(alert or ""))
    per_channel = _object(preferences.get("channels")).get(channel)
    return per_alert.get(channel) is False or per_channel is False or _object(per_channel).get("enabled") is False


def _object(value: Any) -> dict[str, Any]:
    """What people write as preferences may have any shape; only objects say anything here."""
    return value if isinstance(value, dict) else {}
