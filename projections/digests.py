"""Digests: forwards that are collected for a while and leave as one message (rule 4).

A digest is a notice of its own that nobody reads, made by the fold, with one step that waits; so it is due, asked and
decided like everything else. Its members are steps of other notices that name it in `held_in`. What is collected when
its Due counts is gathered and goes with that answer, whatever is read meanwhile; what comes later waits for the next.
"""

from __future__ import annotations

import json
from typing import Any

from projections.box import HELD, Box
from projections.delivery import request
from projections.notice import Notice, Step
from projections.outgoing import Outgoing
from projections.policy import policy_of, read_object
from projections.told import retire
from topics.events import Decided, Record
from topics.ids import derived_id
from topics.json_text import dumps

REASONS = ("digest", "throttle")  # a postpone for one of these collects
SEVERITIES = ("info", "warning", "error", "critical")
NAMED = 50  # notices that a message names; of the others it says how many
CUT = 300


def digest_id(user: str, step: Step, scope: str) -> str:
    """The digest of one receiver's channel: of one config (`scope`), or of everything where its reader wants it so."""
    return derived_id("digest", user, step.channel, step.kind, step.value, scope)


def digest_named(decided: Decided) -> str:
    """The digest that a postponing decision names; empty for none."""
    if decided.answer != "postpone" or decided.reason not in REASONS:
        return ""
    named = read_object(decided.body.decode(errors="replace")).get("digest")
    return named if isinstance(named, str) else ""


def collect(box: Box, notice: Notice, step: Step, decided: Decided, record: Record) -> bool:
    """Put a forward into the digest that its decision names. False if that is none of this receiver's."""
    named, until = digest_named(decided), decided.until or 0
    scope = next((s for s in ("", step.scope) if named and named == digest_id(notice.user, step, s)), None)
    if scope is None:
        return False
    digest = box.notices.get((notice.user, named))
    if digest is None:
        digest = _opened(box, notice, step, named, scope, record)
    waits = digest.steps.get(f"digest/{step.channel}")
    if waits is None:  # somebody else's notice under this id
        return False
    sooner = waits.state == "waiting" and until < waits.due_at and overrides(notice)  # not held by others' quiet hours
    if waits.state in ("delivered", "skipped") or sooner:
        waits.wait(until)
    if scope:
        digest.forward = notice.forward  # as the config is now
    retire(step, policy_of(notice.forward), record.timestamp)
    step.number, step.state, step.reason, step.due_at = step.number + 1, "collected", decided.reason, until
    step.held_in = named
    box.held.setdefault((notice.user, named), set()).add((notice.notice_id, f"{step.what}/{step.step}"))
    _name(box, digest, notice, waits)
    box.touched.add((notice.user, named))
    return True


def gather(box: Box, digest: Notice) -> None:
    """The digest is due: what it holds now goes with the answer."""
    members = _members(box, digest, "collected")
    for _, step in members:
        step.state = "gathered"
    digest.severity = max((notice.severity for notice, _ in members), key=_rank, default=SEVERITIES[0])
    _say(digest, _named(digest))


def settle(
    box: Box, digest: Notice, waits: Step, decided: Decided, record: Record
) -> tuple[list[Outgoing], list[tuple[Notice, Step]]]:
    """The decision on a digest was read back: all that was gathered is delivered, skipped or goes on waiting.

    What has to be said, and the members for which this is the answer.
    """
    gathered = _members(box, digest, "gathered")
    out: list[Outgoing] = []
    if decided.answer == "postpone":
        waits.wait(decided.until or 0)
        for notice, step in gathered:
            step.state, step.reason = ("skipped", "stopped") if notice.stopped else ("collected", step.reason)
            if notice.hold > record.timestamp and not notice.stopped:  # snoozed while it was decided: the later of both
                step.wait(max(waits.due_at, notice.hold))
        gathered = []
    else:
        if decided.answer == "deliver" and gathered:
            texts = _texts(digest, waits.number, gathered)
            out = [request(digest, waits, decided, record, lambda: texts)]
            retire(waits, policy_of(digest.forward), record.timestamp)
            waits.told, waits.told_at = waits.number, waits.asked_at
        waits.state = "delivered" if out else "skipped"
        for _, step in gathered:
            step.state, step.reason = waits.state, decided.reason
            step.told = waits.number if out else step.told
        left = _members(box, digest, "collected")
        if left:
            waits.wait(min(s.due_at for _, s in left))
        _forget(digest, waits.number)
    waits.reason = decided.reason
    return out, gathered


def gathered_in(box: Box, digest: Notice) -> list[Notice]:
    """The notices that the digest that is being decided would carry."""
    return list({notice.notice_id: notice for notice, _ in _members(box, digest, "gathered")}.values())


def overrides(notice: Notice) -> bool:
    """Whether its config lets it pass opt-outs and quiet hours."""
    return notice.severity in policy_of(notice.forward).override


def _members(box: Box, digest: Notice, state: str) -> list[tuple[Notice, Step]]:
    found = []
    for notice_id, name in box.held.get((digest.user, digest.notice_id), ()):
        notice = box.notices.get((digest.user, notice_id))
        step = notice.steps.get(name) if notice else None
        if notice and step and step.state == state and step.held_in == digest.notice_id:
            box.touched.add((notice.user, notice_id))
            found.append((notice, step))
    return sorted(found, key=lambda m: (m[0].raised_offset, m[0].notice_id, m[1].what, m[1].step))


def _opened(box: Box, notice: Notice, step: Step, named: str, scope: str, record: Record) -> Notice:
    digest = Notice(
        user=notice.user,
        notice_id=named,
        raised_offset=record.offset,
        raised_at=record.timestamp,
        changed_offset=record.offset,
        inbox=False,
        kind="digest",
        alert=notice.alert if scope else None,
        config_id=notice.config_id if scope else None,
        key=None,
        entity_type=None,
        entity_id=None,
        severity=SEVERITIES[0],
        forward=notice.forward if scope else "",
        body='{"named":[]}',
        steps={
            f"digest/{step.channel}": Step(
                "digest", step.channel, step.channel, step.kind, step.value, 0, state="skipped", scope=scope
            )
        },
    )
    box.notices[notice.user, named] = digest
    return digest


def named_in(digest: Notice) -> list[str]:
    """The notices that its message names as yet, some of which may have left it."""
    return [n["id"] for n in _named(digest)]


def _name(box: Box, digest: Notice, notice: Notice, waits: Step) -> None:
    """Remember what the message will say of a notice; while one is being decided, that is the next."""
    named = _named(digest)
    if len(named) >= NAMED:  # what was read makes room
        named = [n for n in named if _holds(box, digest, n["id"])]
    asked = waits.state == "asked"
    number = waits.number + asked
    same = [n for n in named if n["number"] == number or not asked]
    if len(same) >= NAMED or notice.notice_id in (n["id"] for n in same):
        _say(digest, named)
        return
    told = read_object(notice.body)
    text = {name: str(told[name])[:CUT] for name in ("title", "text") if told.get(name)}
    link = told.get("link")
    text |= {"link": link} if isinstance(link, str) and len(link) < 2 * CUT else {}
    _say(digest, [*named, {"number": number, "id": notice.notice_id, **text}])


def _holds(box: Box, digest: Notice, notice_id: str) -> bool:
    notice = box.notices.get((digest.user, notice_id))
    held = (s for s in notice.steps.values() if s.state in HELD and s.held_in == digest.notice_id) if notice else ()
    return any(held)


def _forget(digest: Notice, number: int) -> None:
    _say(digest, [n for n in _named(digest) if n["number"] >= number])


def _named(digest: Notice) -> list[dict[str, Any]]:
    """None where the digest's text was not loaded: who only watches needs no texts."""
    named = read_object(digest.body).get("named")
    return named if isinstance(named, list) else []


def _say(digest: Notice, named: list[dict[str, Any]]) -> None:
    digest.body = json.dumps({"named": named})  # ASCII: halves of characters and NUL stay escapes
    digest.version = (digest.version[0] + 1, 0)  # of a digest: counts its changes


def _texts(digest: Notice, number: int, gathered: list[tuple[Notice, Step]]) -> dict[str, str]:
    ids = list(dict.fromkeys(notice.notice_id for notice, _ in gathered))
    there = set(ids)
    named = [n for n in _named(digest) if n["number"] <= number and n["id"] in there]
    lines = ["\n".join(f"{'- ' if i == 0 else '  '}{line}" for i, line in enumerate(_lines(n))) for n in named]
    if len(ids) > len(named):
        lines.append(f"and {len(ids) - len(named)} more" if named else f"{len(ids)} notices")
    title = str(named[0].get("title") or "1 notice") if len(ids) == 1 and named else f"{len(ids)} notices"
    texts = {"title": dumps(title), "text": dumps("\n\n".join(lines)), "count": str(len(ids))}
    return texts | {"notices": dumps([n["id"] for n in named])}


def _lines(named: dict[str, Any]) -> list[str]:
    return [line for name in ("title", "text", "link") if (line := " ".join(str(named.get(name, "")).split()))]


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else 0
