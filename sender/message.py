"""What is to be said to one receiver, read from a DeliveryRequested's body, and its words as plain text.

The same request gives the same words at every attempt; nothing here looks at a clock.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sender.delivery import Delivery


class Unreadable(ValueError):
    """The body can't be sent to anybody; the message says why."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message; `requested_at` in ms. `message_id` is the key by which the other side can tell a repeat."""

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

    @property
    def subject(self) -> str:
        """The title in one line; what is serious says so first."""
        title = " ".join(self.title.split()) or "Notice"
        return f"[{self.severity.upper()}] {title}" if self.severity in ("error", "critical") else title

    @property
    def requested(self) -> datetime:
        """When it was asked for."""
        return datetime.fromtimestamp(self.requested_at / 1000, UTC)

    def plain_text(self) -> str:
        """The whole message for people."""
        parts = [f"Hello {' '.join(self.name.split())},"] if self.name else []
        parts.append(self.text.strip() or self.title.strip())
        if self.link:
            parts.append(self.link)
        return "\n\n".join([*parts, f"-- \n{self._why()}"]) + "\n"

    def _why(self) -> str:
        about = f"The alert “{self.alert}”" if self.alert else "Somebody"
        at = f"{self.requested:%Y-%m-%d %H:%M} UTC"
        if self.user == f"{self.channel}:{self.address}":
            why = f"{about} sent this notice to this address ({at})."
        else:
            why = f"{about} raised this notice for {self.user}. It was forwarded because it was still unread ({at})."
        return f"{why}\nNotice {self.notice_id}"


def message_of(delivery: Delivery) -> Message:
    """The message in a delivery's body. Unreadable."""
    try:
        body = json.loads(delivery.body)
    except ValueError as error:
        msg = "the body of the delivery is no JSON: it was erased, or its writer is broken"
        raise Unreadable(msg) from error
    if not isinstance(body, dict) or not _text(body, "address"):
        msg = "the delivery names no address"
        raise Unreadable(msg)
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
    )


def _text(body: dict[str, Any], name: str) -> str:
    """A member as text that UTF-8 can carry: JSON can hold half characters."""
    value = body.get(name)
    return "" if value is None else str(value).encode("utf-8", "replace").decode()
