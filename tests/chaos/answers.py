"""How the oracle itself answers a question of the log, in the order of the policy: a silence, an opt-out, a longer
delay, quiet hours, the throttle, a digest.

What a decision may see late (whether a mail was sent already, what is in flight under a throttle) is judged by what
stood on the log when it was asked: there the answer has to be one of those that are right.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from tests.chaos.told import Question, wish_of
from topics.durations import milliseconds
from topics.events import Decided

Verdict = tuple[str, str]  # answer, reason


@dataclass(frozen=True, slots=True)
class World:
    """What holds for a whole run: who is silenced, and for whom it is always quiet."""

    hushed: Collection[str] = ()
    quiet: Collection[str] = ()


def right(question: Question, world: World) -> list[Verdict]:
    """The answers that are right."""
    user, _, what, step, _ = question.key
    told, lane, at = question.told, question.lane, question.at
    alert = told.raised.alert if told.raised else None
    wish = wish_of(question.preferences, alert, lane.channel) if lane.person else {}
    passes = question.severity in told.plan.get("override", [])
    late: list[Verdict] = [("skip", "not_told"), ("postpone", "delivery_pending")] if what == "resolved" else []
    if what == "digest" and not question.gathered:
        return [("skip", "empty")]
    if user in world.hushed:
        return [*late, ("skip", "silenced")]
    if wish.get("enabled") is False and not passes:
        return [*late, ("skip", "opt_out")]
    wanted_at = told.at + milliseconds(wish.get("after") or 0)
    if what == "forward" and lane.person and step == lane.channel and wanted_at > at:
        return [("postpone", "delay")]
    if user in world.quiet and lane.person and not passes:
        return [*late, ("postpone", "quiet_hours")]
    if what == "resolved":
        return [*late, ("deliver", "resolved")]
    return _collected(question, wish.get("digest"))


def _collected(question: Question, own_digest: object) -> list[Verdict]:
    told, what = question.told, question.key[2]
    every = told.plan.get("digest") if own_digest is None else own_digest
    free: Verdict = ("deliver", "unread")
    if what == "digest":
        free = ("deliver", "digest")
    elif every and milliseconds(every):
        free = ("postpone", "digest")
    throttle = told.plan.get("throttle")
    if not throttle or not told.config:
        return [free]
    held: Verdict = ("postpone", "throttle")
    per_ms = milliseconds(throttle["per"])
    full = sum(t > question.at - per_ms for t in question.recently) >= throttle["max"]
    return [held] if full else [free, held]  # what is in flight counts too: held before it is full


def until_is_right(question: Question, decided: Decided) -> bool:
    """Whether a postponing answer names a time that is right."""
    until, at, lane = decided.until or 0, question.at, question.lane
    wish = wish_of(question.preferences, question.told.raised.alert if question.told.raised else None, lane.channel)
    if decided.reason == "delay":
        return until == question.told.at + milliseconds(wish.get("after") or 0)
    if decided.reason == "digest":
        own = wish.get("digest") if lane.person else None
        return until == at + milliseconds(question.told.plan.get("digest") if own is None else own)
    if decided.reason == "throttle":
        return at <= until <= at + milliseconds(question.told.plan["throttle"]["per"])
    return until > at
