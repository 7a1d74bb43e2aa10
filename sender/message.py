"""What is to be said to one receiver, read from a DeliveryRequested's body, and its words as plain text.

The same request gives the same words at every attempt; nothing here looks at a clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sender.delivery import Delivery

LATEST_MS = 253_402_300_800_000  # the year 10000, which no calendar of ours holds


class Unreadable(ValueError):
    """The body can't be sent to anybody; the message says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; times in ms. `message_id` is the key by which the other side can tell a second copy.

    `count`: how many notices a digest carries, 0 for a message about one alone. `repeated`: it was sent before and
    still stands. `resolved_at`: it is over, and whoever was told of it hears so.
    """

    delivery_id: str
    message_id: str
    notice_id: str
    user: str
    channel: str
    address: str
    title: str
    text: str
    severity: str
    link: str | None
    alert: str | None
    name: str | None
    requested_at: int
    raised_at: int | None = None
    count: int = 0
    repeated: bool = False
    resolved_at: int | None = None

    @property
    def subject(self) -> str:
        """The title in one line; what is serious and not over says so first."""
        title = " ".join(self.title.split()) or "Notice"
        if self.count > 1 and self.alert:
            title = f"{title} of {' '.join(self.alert.split())}"
        if self.repeated:
            title = f"Still open: {title}"
        serious = self.severity in ("error", "critical") and self.resolved_at is None
        return f"[{self.severity.upper()}] {title}" if serious else title

    @property
    def requested(self) -> datetime:
        """When it was asked for."""
        return _time(self.requested_at)

    def plain_text(self) -> str:
        """The whole message for people."""
        parts = [f"Hello {' '.join(self.name.split())},"] if self.name else []
        if self.resolved_at is not None:
            parts.append(f"This is over since {_said(self.resolved_at)}.")
        elif self.repeated and self.raised_at is not None:
            parts.append(f"This is open since {_said(self.raised_at)}.")
        parts.append(self.text.strip() or self.title.strip())
        if self.link:
            parts.append(self.link)
        return "\n\n".join([*parts, f"-- \n{self._why()}"]) + "\n"

    def _why(self) -> str:
        """Where it comes from, and what made it be sent: true for each kind of message."""
        nobody = self.user == f"{self.channel}:{self.address}"  # an address that has no inbox
        reader = "this address" if nobody else self.user
        about, at = f"The alert “{self.alert}”" if self.alert else "Somebody", _said(self.requested_at)
        if self.count > 1:
            source = f" of the alert “{self.alert}”" if self.alert else ""
            unread = "" if nobody else ", still unread,"
            return f"These {self.count} notices{source} for {reader}{unread} were collected into one message ({at})."
        if self.resolved_at is not None:
            why = (
                f"{about} raised this notice for {reader}. You hear that it is over because you were told of it ({at})."
            )
        elif self.repeated:
            unread = "it is not over" if nobody else "it is not over and still unread"
            why = f"{about} raised this notice for {reader}. It was sent again because {unread} ({at})."
        elif nobody:
            why = f"{about} sent this notice to this address ({at})."
        else:
            why = f"{about} raised this notice for {self.user}. It was forwarded because it was still unread ({at})."
        return f"{why}\nNotice {self.notice_id}"


def message_of(delivery: Delivery) -> Message:
    """The message in a delivery's body. Unreadable."""
    try:
        body = json.loads(delivery.body)
    except ValueError as error:
        raise Unreadable("the body of the delivery is no JSON: it was erased, or its writer is broken") from error
    if not isinstance(body, dict) or not _text(body, "address"):
        raise Unreadable("the delivery names no address")
    return Message(
        delivery_id=delivery.delivery_id,
        message_id=delivery.message_id,
        notice_id=delivery.notice_id,
        user=delivery.user,
        channel=delivery.channel,
        address=_text(body, "address"),
        title=_text(body, "title"),
        text=_text(body, "text"),
        severity=_text(body, "severity") or "info",
        link=_text(body, "link") or None,
        alert=_text(body, "alert") or None,
        name=_text(body, "name") or None,
        requested_at=delivery.requested_at,
        raised_at=_number(body, "raised_at"),
        count=_number(body, "count") or 0,
        repeated=body.get("repeat") is True,
        resolved_at=_number(body, "resolved_at"),
    )


def _text(body: dict[str, Any], name: str) -> str:
    """A member as text that UTF-8 can carry: JSON can hold half characters."""
    value = body.get(name)
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def _number(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    return value if type(value) is int and 0 <= value < LATEST_MS else None


def _time(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _said(ms: int) -> str:
    return f"{_time(ms):%Y-%m-%d %H:%M} UTC"
