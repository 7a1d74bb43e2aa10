"""Who is to be told on which channel, decided once, when a config or a direct notice is accepted, and recorded in
it (rule 5).

An entry is a recipient id if there is such a recipient, else an address if the channel says that it may be one, else
it is refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from api.http.requests import json_object
from api.notices.addresses import is_address
from api.problems import Problem
from projections.sql.views import recipients
from topics.durations import milliseconds
from topics.events import Lane

if TYPE_CHECKING:
    from api.gateway import Gateway

INBOX = "inbox"
LOOKED_THROUGH = 10_000
SHORTEST_REPEAT_MS = 60_000

Severity = Literal["info", "warning", "error", "critical"]
Duration = Annotated[int, BeforeValidator(milliseconds, json_schema_input_type=float | str)]  # ms inside


def _a_while(ms: int) -> int:
    if ms == 0:
        raise ValueError("longer than nothing")
    return ms


def _no_storm(ms: int) -> int:
    if ms < SHORTEST_REPEAT_MS:
        raise ValueError("at least a minute")
    return ms


class ForwardStep(BaseModel):
    """Forward to `channel`, `after` the notice was raised and if it is still unread."""

    model_config = ConfigDict(extra="forbid")
    channel: str = Field(min_length=1, max_length=50)
    after: Duration


class Throttle(BaseModel):
    """At most `max` messages to one person on one channel within any span of `per`; the rest is folded."""

    model_config = ConfigDict(extra="forbid")
    max: int = Field(ge=1, le=10_000, strict=True)
    per: Annotated[Duration, AfterValidator(_a_while)]


class Forward(BaseModel):
    """How a config forwards; members for later are kept as they are. What each does: docs/forwarding.md."""

    model_config = ConfigDict(extra="allow")
    steps: list[ForwardStep] = Field(default_factory=list, max_length=20)
    digest: Duration | None = None
    throttle: Throttle | None = None
    repeat: Annotated[Duration, AfterValidator(_no_storm)] | None = None
    override: list[Severity] = Field(default_factory=list, max_length=4)
    tell_resolved: StrictBool = False


def steps_of(channel: str, forward: Forward | None, default_ms: int) -> list[tuple[str, int]]:
    """(step, delay in ms) of a channel: as `forward` says, else one step after the default."""
    named = [s.after for s in forward.steps if s.channel == channel] if forward else []
    if not named:
        return [(channel, default_ms)]
    return [(channel if i == 0 else f"{channel}#{i + 1}", after) for i, after in enumerate(named)]


async def resolve(
    gateway: Gateway, channels: Mapping[str, Sequence[str]], forward: Forward | None, default_ms: int
) -> tuple[Lane, ...]:
    """The lanes of `channels` (channel → entries). Problem `unknown_channel`, `unknown_recipient`, `bad_field`."""
    _check_channels(gateway, channels, forward)
    entries = {e for named in channels.values() for e in named}
    people = await gateway.database.read(recipients.bodies, sorted(entries))
    lanes: list[Lane] = []
    for channel, named in channels.items():
        for entry in dict.fromkeys(named):
            kind = "recipient" if entry in people else "address"
            if kind == "address" and not is_address(channel, entry):
                await _refuse(gateway, channel, entry)
            if channel == INBOX:
                lanes.append(Lane("", INBOX, kind, entry, 0))
            else:
                lanes += [Lane(step, channel, kind, entry, ms) for step, ms in steps_of(channel, forward, default_ms)]
    return tuple(lanes)


def own_lanes(bodies: Mapping[str, str], channels: Sequence[str], after_ms: int) -> tuple[Lane, ...]:
    """Every recipient's own addresses, from the recipients' texts; whoever is no recipient has only the inbox."""
    lanes: list[Lane] = []
    for user, body in bodies.items():
        addresses = json_object(body).get("addresses")
        known = [c for c in addresses if c in channels] if isinstance(addresses, dict) else []
        lanes += [Lane(channel, channel, "recipient", user, after_ms) for channel in known]
    return tuple(lanes)


def _check_channels(gateway: Gateway, channels: Mapping[str, Sequence[str]], forward: Forward | None) -> None:
    known = (INBOX, *gateway.settings.channels)
    for channel in channels:
        if channel not in known:
            nearest = difflib.get_close_matches(channel, known, 1, 0.4)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise Problem("unknown_channel", f"There is no channel {channel[:50]!r}.{hint}", known=list(known))
    for step in forward.steps if forward else ():
        if step.channel not in channels or step.channel == INBOX:
            raise Problem("bad_field", f"`forward.steps` names {step.channel!r}, which is not under `channel`.")


async def _refuse(gateway: Gateway, channel: str, entry: str) -> None:
    ids = await gateway.database.read(recipients.some_ids, LOOKED_THROUGH)
    nearest = difflib.get_close_matches(entry, ids, 1, 0.4)
    what = "no recipient" if channel == INBOX else f"neither a recipient nor an address of {channel}"
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise Problem(
        "unknown_recipient",
        f"{entry[:100]!r} is {what}.{hint}",
        channel=channel,
        entry=entry[:100],
        nearest=nearest[0] if nearest else None,
    )
