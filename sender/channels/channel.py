"""The contract of a channel: one method that says sent, later or never. Retrying is nobody's business but the sender's.

A channel is found by its name: the settings' Apprise URL of that name, else the file `sender/channels/<name>.py`, else
an entry point in the group `tidings.channels`; the latter two hold a function `open_channel(settings) -> Channel`.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol, cast

from sender.message import Message
from sender.settings import SenderSettings

ENTRY_POINTS = "tidings.channels"
NOT_CHANNELS = ("apprise", "channel")  # files here whose name a message may not call


@dataclass(frozen=True, slots=True)
class Sent:
    """The other side took responsibility; `answer` is its text."""

    answer: str


@dataclass(frozen=True, slots=True)
class RetryLater:
    """Not now: an outage, a full mailbox, a deadline. The message may or may not have got through."""

    answer: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """Never: trying again would get the same answer. `reason` is rejected, no_channel or too_late."""

    answer: str
    reason: str = "rejected"


Result = Sent | RetryLater | Rejected


class Channel(Protocol):
    """A way to the outside; one instance serves all of a sender's attempts, several at a time."""

    async def deliver(self, message: Message, deadline_s: float) -> Result:
        """Try once, for at most `deadline_s` seconds; after them no step may begin that can't be taken back."""
        ...

    async def close(self) -> None:
        """Give back connections."""
        ...


def open_channel(name: str, settings: SenderSettings) -> Channel | None:
    """The channel of that name, or null if there is none. The channel's own errors if it can't be opened."""
    if url := settings.channels.get(name):
        from sender.channels.apprise import AppriseChannel  # noqa: PLC0415 - Apprise is loaded only where it is used

        return AppriseChannel(name, url)
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        return None
    module = f"sender.channels.{name}"
    if name not in NOT_CHANNELS and importlib.util.find_spec(module):
        return cast("Channel", importlib.import_module(module).open_channel(settings))
    for entry in entry_points(group=ENTRY_POINTS, name=name):
        return cast("Channel", entry.load()(settings))
    return None
