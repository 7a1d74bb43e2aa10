"""What deciding looks at beside the question itself: recipients, silences, what was delivered lately, open digests."""

from __future__ import annotations

from sqlalchemy import Connection, bindparam, or_, select

from projections.box import Box
from projections.deciding import Looks, Question, Silence
from projections.delivery import delivery_id
from projections.digests import digest_id, digest_named, gathered_in, overrides
from projections.forwarding import FORWARDS, decided_id
from projections.notice import Notice, Step
from projections.policy import policy_of
from projections.sql.keys import among
from projections.sql.outbox import waiting_ids
from projections.sql.schema import delivery_results, outbox, silences, steps
from projections.sql.views.recipients import bodies
from projections.told import tellings, told_times
from topics.codec import decode
from topics.events import Decided

Asked = list[tuple[Notice, Step]]
_s = steps.c
_OUTCOMES = select(delivery_results.c.delivery_id, delivery_results.c.outcome).where(
    among(delivery_results.c.delivery_id)
)
_SILENCES = select(silences).where(
    silences.c.until > bindparam("since"), or_(silences.c.user_id.is_(None), among(silences.c.user_id))
)
_SCOPE = (_s.user_id, _s.scope, _s.channel, _s.kind, _s.value)
_TOLD = select(*_SCOPE, _s.told, _s.held_in, _s.told_at, _s.earlier).where(
    among(_s.user_id, _s.scope), _s.told_at > bindparam("since")
)
_IN_FLIGHT = select(*_SCOPE, _s.notice_id, _s.what, _s.step, _s.number, _s.asked_at).where(
    _s.partition == bindparam("at_partition"), _s.state == "asked", among(_s.user_id, _s.scope)
)
_ANSWERS = select(outbox.c.event_id, outbox.c.value).where(among(outbox.c.event_id))
_OPEN = select(_s.user_id, _s.notice_id).where(
    among(_s.user_id, _s.notice_id), _s.what == "digest", _s.state.in_(("waiting", "asked"))
)


def looked_at(tx: Connection, partition: int, box: Box, asked: Asked) -> tuple[list[Question], Looks]:
    """The questions that nobody has answered yet, and what they look at."""
    ids = {decided_id(n.user, n.notice_id, s): (n, s) for n, s in asked}
    answered = waiting_ids(tx, ids)
    open_ = [pair for identity, pair in ids.items() if identity not in answered]
    if not open_:
        return [], Looks()
    named = {s.value for _, s in open_ if s.kind == "recipient"}
    people = bodies(tx, named) if named else {}
    outcomes = _outcomes(tx, open_)
    carried = {(n.user, n.notice_id): gathered_in(box, n) for n, s in open_ if s.what == "digest"}
    questions = [
        Question(
            n,
            s,
            partition,
            recipient=people.get(s.value) if s.kind == "recipient" else None,
            gathered=len(carried[n.user, n.notice_id]) if s.what == "digest" else 0,
            overrides=any(map(overrides, carried[n.user, n.notice_id])) if s.what == "digest" else overrides(n),
            told=tuple(outcomes.get(i, "waiting") for i in told_of(n, s.channel)) if s.what == "resolved" else (),
        )
        for n, s in open_
    ]
    since = min(s.asked_at or 0 for _, s in open_)
    looks = Looks(_silences(tx, {n.user for n, _ in open_}, since))
    _throttles(tx, partition, open_, looks)
    return questions, looks


def told_of(notice: Notice, channel: str) -> list[str]:
    """The deliveries that told of a notice on a channel."""
    told = [s for s in notice.steps.values() if s.what in FORWARDS and s.channel == channel]
    return [delivery_id(notice, s, t.number, t.held_in) for s in told for t in tellings(s)]


def _silences(tx: Connection, users: set[str], since: int) -> list[Silence]:
    found = tx.execute(_SILENCES, {"keys": users, "since": since})
    all_ = [Silence(r.silence_id, r.alert, r.entity_type, r.entity_id, r.user_id, r.until) for r in found]
    return sorted(all_, key=lambda s: s.silence_id)


def _outcomes(tx: Connection, open_: Asked) -> dict[str, str]:
    wanted = {i for n, s in open_ if s.what == "resolved" for i in told_of(n, s.channel)}
    return {r.delivery_id: r.outcome for r in tx.execute(_OUTCOMES, {"keys": wanted})} if wanted else {}


def _throttles(tx: Connection, partition: int, open_: Asked, looks: Looks) -> None:
    """What counts against the throttles of these questions: delivered in their windows, or being decided."""
    throttled = [(n, s, t) for n, s in open_ if s.scope and (t := policy_of(n.forward).throttle)]
    if not throttled:
        return
    since = min((s.asked_at or 0) - t.per_ms for _, s, t in throttled)
    scopes = {(n.user, s.scope) for n, s, _ in throttled}
    for r in tx.execute(_TOLD, {"keys": scopes, "since": since}):
        looks.told_at.setdefault(tuple(r)[:5], []).extend(told_times(r.told, r.held_in, r.told_at, r.earlier))
    _in_flight(tx, partition, scopes, looks)
    digests = {(n.user, digest_id(n.user, s, s.scope)) for n, s, _ in throttled}
    looks.open_digests.update((r.user_id, r.notice_id) for r in tx.execute(_OPEN, {"keys": digests}))


def _in_flight(tx: Connection, partition: int, scopes: set[tuple[str, str]], looks: Looks) -> None:
    """What was decided on these scopes but not read back: what is delivered counts, what is collected is waited for."""
    asked = {
        decided_id(r.user_id, r.notice_id, Step(r.what, r.step, r.channel, r.kind, r.value, 0, number=r.number)): r
        for r in tx.execute(_IN_FLIGHT, {"keys": scopes, "at_partition": partition})
    }
    for answer in tx.execute(_ANSWERS, {"keys": asked}) if asked else ():
        decided, r = decode(bytes(answer.value)), asked[answer.event_id]
        if isinstance(decided, Decided) and decided.answer == "deliver":
            looks.told_at.setdefault(tuple(r)[:5], []).append(r.asked_at)
        elif isinstance(decided, Decided) and (digest := digest_named(decided)):
            looks.open_digests.add((r.user_id, digest))
