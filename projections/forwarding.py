"""What waits for a notice, how a Due asks, and what reading an answer back does (rules 2, 4 and 5).

Read before the Due that delivers: never forwarded. Read after it: forwarded. An answer counts only once it stands on
the log.
"""

from __future__ import annotations

from projections import digests
from projections.box import Box
from projections.delivery import LATEST_MS, answer_body, recall, request, texts_of
from projections.notice import Notice, Step
from projections.outgoing import Outgoing, Refused
from projections.policy import Preferences, policy_of
from projections.told import retire, tellings
from topics.events import Decided, Due, Lane, NoticeRaised, Record
from topics.ids import derived_id

LONGEST_DELAY_MS = 3653 * 24 * 3_600_000
FORWARDS = ("forward", "repeat")
ANSWERS = ("deliver", "skip", "postpone")


def steps_of(e: NoticeRaised, raised_at: int, preferences: Preferences) -> dict[str, Step]:
    """The forwards of a new notice; `due_at` = log time of NoticeRaised + delay.

    The delay is the lane's, or the one that its receiver wants for the first message on this channel.
    """
    found = {}
    for lane in e.lanes:
        if lane.channel == "inbox":
            continue
        wanted = preferences.wish(e.alert, lane.channel).after_ms if is_first(lane.step, lane.channel) else None
        after_ms = lane.after_ms if wanted is None or lane.kind != "recipient" else wanted
        found[f"forward/{lane.step}"] = Step(
            "forward", lane.step, lane.channel, lane.kind, lane.value, raised_at + after_ms, scope=e.config_id or ""
        )
    return found


def is_first(step: str, channel: str) -> bool:
    """Whether this is the first step on its channel: the next ones are `email#2`, `email#3`, …"""
    return step == channel


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

    What was asked is answered as it stood, what is being sent is recalled, unless a digest carries it with others.
    """
    if notice.stopped:
        return []
    notice.stopped = True
    out = []
    for step in notice.steps.values():
        if step.what not in FORWARDS:
            continue
        if step.state in ("waiting", "collected"):
            step.state, step.reason = "skipped", reason
        out += [recall(notice, step, t.number, record, reason) for t in tellings(step) if not t.held_in]
    return out


def snooze_step(notice: Notice, until: int) -> None:
    """A snooze sets anew what waits.

    What is asked already only keeps the later time for a postponed answer (`hold`).
    """
    for step in notice.steps.values():
        if step.what in FORWARDS and step.state in ("waiting", "collected"):
            step.wait(max(step.due_at, until))
    old = notice.steps.get("snooze/")
    notice.steps["snooze/"] = Step(
        "snooze", "", "inbox", "recipient", notice.user, until, number=old.number + 1 if old else 1
    )


def ask_resolved(notice: Notice, record: Record, preferences: str) -> list[Step]:
    """The condition is over: whoever was told of it is asked about once more, if the config wants it."""
    if notice.ended_at is None or not policy_of(notice.forward).tell_resolved:
        return []
    asked = []
    for step in [s for s in notice.steps.values() if s.what in FORWARDS and tellings(s)]:
        if f"resolved/{step.channel}" not in notice.steps:
            asked.append(
                Step(
                    "resolved",
                    step.channel,
                    step.channel,
                    step.kind,
                    step.value,
                    record.timestamp,
                    state="asked",
                    asked_offset=record.offset,
                    asked_at=record.timestamp,
                    asked_preferences=preferences,
                    scope=step.scope,
                )
            )
            notice.steps[f"resolved/{step.channel}"] = asked[-1]
    return asked


def answer(box: Box, notice: Notice, step: Step, decided: Decided, record: Record) -> list[Outgoing]:
    """The decision was read back: only now it has effects. Refused for a body that is no decision's."""
    if step.what == "digest":
        out, settled = digests.settle(box, notice, step, decided, record)
        for other, member in settled:
            _again(other, member, step.asked_at or 0)
            ask_resolved(other, record, box.preferences.get(other.user, ""))
        return out
    if decided.answer == "deliver":
        out = [request(notice, step, decided, record, texts_of(notice, step))]
        retire(step, policy_of(notice.forward), record.timestamp)
        step.state, step.reason, step.held_in = "delivered", decided.reason, ""
        step.told, step.told_at = step.number, step.asked_at
        ask_resolved(notice, record, box.preferences.get(notice.user, ""))
        _again(notice, step, step.asked_at or 0)
        return out
    if decided.answer == "postpone" and (not notice.stopped or step.what == "resolved"):
        until = decided.until or 0
        snoozed = notice.hold > record.timestamp
        if step.what in FORWARDS and not snoozed and digests.collect(box, notice, step, decided, record):
            return []
        step.wait(max(until, notice.hold))
        step.reason = decided.reason
        return []
    step.state, step.reason = "skipped", decided.reason if decided.answer == "skip" else "stopped"
    _again(notice, step, step.asked_at or 0)
    return []


def _again(notice: Notice, step: Step, asked_at: int) -> None:
    """While the condition stands unread, what was said, or kept silent about, is said again after a while."""
    repeat_ms = policy_of(notice.forward).repeat_ms
    condition = notice.kind == "condition" or (notice.kind == "direct" and notice.key is not None)
    if not repeat_ms or not condition or notice.stopped or step.what not in FORWARDS:
        return
    if step.state != "delivered" and step.reason != "silenced":
        return
    name = f"repeat/{step.step}"
    again = notice.steps.get(name)
    if again is None:
        again = notice.steps[name] = Step(
            "repeat", step.step, step.channel, step.kind, step.value, 0, number=-1, scope=step.scope
        )
    again.wait(max(asked_at + repeat_ms, notice.hold))


def decided_id(user: str, notice_id: str, step: Step) -> str:
    """The id of the decision on one question: notice, user, step, number."""
    return derived_id("decided", notice_id, user, step.what, step.step, step.number)


def due_id(user: str, notice_id: str, step: Step) -> str:
    """The id of the Due for what waits under this number and time."""
    return derived_id("due", notice_id, user, step.what, step.step, step.number, step.due_at)


def check_decided(decided: Decided) -> None:
    """Refused for what is no answer: a delivery that can't be made of it, a postponement to no time."""
    if decided.answer not in ANSWERS:
        raise Refused(f"an answer is one of {', '.join(ANSWERS)}, not {decided.answer!r}")
    if decided.answer == "deliver":
        answer_body(decided)
    if decided.answer == "postpone" and not 0 <= (-1 if decided.until is None else decided.until) < LATEST_MS:
        raise Refused(f"until {decided.until} is no time")


def check_lanes(lanes: tuple[Lane, ...]) -> None:
    """Refused for a delay that nobody means: negative, or beyond ten years."""
    for lane in lanes:
        if not 0 <= lane.after_ms <= LONGEST_DELAY_MS:
            raise Refused(f"a forward after {lane.after_ms} ms")
