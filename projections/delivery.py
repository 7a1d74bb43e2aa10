"""What a decision or an end says on `deliveries`: a complete request, or the recall of one (rules 4, 5 and 8)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from projections.notice import Notice, Step
from projections.outgoing import Outgoing, Refused, source_of
from topics.catalogue import DELIVERIES
from topics.events import Decided, DeliveryCancelled, DeliveryRequested, Record
from topics.ids import derived_id
from topics.json_text import dumps, encoded, joined, members, parse, read

DELIVERY_DEADLINE_MS = 24 * 3_600_000
LATEST_MS = 1 << 53  # what every JSON reader can still count
TEXTS = ("title", "text", "link", "data")


def delivery_id(notice: Notice, step: Step, number: int, held_in: str | None = None) -> str:
    """The one delivery that the question of this number asks for, or of the digest that carried it."""
    if carrier := step.held_in if held_in is None else held_in:
        return derived_id("delivery", carrier, notice.user, "digest", step.channel, number)
    return derived_id("delivery", notice.notice_id, notice.user, step.what, step.step, number)


def answer_body(decided: Decided) -> tuple[dict[str, Any], int]:
    """What a decision says, and the deadline of what it delivers. Refused for a body that is no decision's."""
    try:
        said = read(decided.body.decode())
        deadline_at = said["deadline_at"]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("the body is no decision's") from error
    if not isinstance(deadline_at, int) or not 0 <= deadline_at < LATEST_MS:
        raise Refused("the decision names no deadline")
    return said, deadline_at


def request(
    notice: Notice, step: Step, decided: Decided, record: Record, texts: Callable[[], dict[str, str]]
) -> Outgoing:
    """The delivery that was decided on; `texts` are the raw members of what is said. All as it stands now."""
    identity = delivery_id(notice, step, step.number, "")
    user, notice_id, raised_at, channel, name = notice.user, notice.notice_id, notice.raised_at, step.channel, step.step
    head = {"severity": notice.severity, "alert": notice.alert, "notice_id": notice_id, "user": user}

    def requested() -> DeliveryRequested:
        said, deadline_at = answer_body(decided)
        whom = {"address": said.get("address"), "name": said.get("name") or ""}
        content = {member: dumps(value) for member, value in (whom | head).items()}
        return DeliveryRequested(
            event_id=derived_id("requested", identity),
            **source_of(record),
            delivery_id=identity,
            user=user,
            notice_id=notice_id,
            step=name,
            channel=channel,
            message_id=f"<{identity}@tidings>",
            deadline_at=deadline_at,
            body=encoded(joined(content | {"raised_at": str(raised_at)} | texts())),
        )

    return Outgoing(DELIVERIES, user, requested, (identity,))


def texts_of(notice: Notice, step: Step) -> Callable[[], dict[str, str]]:
    """What a forward says: the notice as it stands, and what kind of message it is where it is not the first."""
    body, what, ended_at = notice.body, step.what, notice.ended_at

    def texts() -> dict[str, str]:
        told = members(body)
        found = {name: told[name] for name in TEXTS if name in told}
        if what == "repeat":
            found["repeat"] = "true"
        if what == "resolved":
            title = parse(told.get("title", "null")) or ""
            found |= {"title": dumps(f"Resolved: {title}"), "resolved_at": str(ended_at)}
        return found

    return texts


def recall(notice: Notice, step: Step, number: int, record: Record, reason: str) -> Outgoing:
    """What was asked for under this number is not to be sent any more; if it was sent already, sent wins."""
    identity = delivery_id(notice, step, number, "")
    cancelled = DeliveryCancelled(
        event_id=derived_id("cancelled", identity),
        **source_of(record),
        delivery_id=identity,
        user=notice.user,
        notice_id=notice.notice_id,
        reason=reason,
    )
    return Outgoing(DELIVERIES, notice.user, cancelled)
