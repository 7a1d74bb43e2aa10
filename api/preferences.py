"""What a user may say about forwards: per alert and channel on or off, delay and digest; quiet hours and their time
zone. Further members are kept as they are.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool

from api.notices.lanes import INBOX, Duration
from api.problems import Problem, valid

_clock = re.compile(r"([01]\d|2[0-3]):[0-5]\d")


def _time(text: str) -> str:
    if not _clock.fullmatch(text):
        raise ValueError("a time of day is written 22:00")
    return text


def _zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("no such time zone; use a name like Europe/Berlin") from error
    return name


Time = Annotated[str, AfterValidator(_time)]
TimeZone = Annotated[str, Field(max_length=100), AfterValidator(_zone)]


class ChannelPreference(BaseModel):
    """How one channel is used. `after` and `digest` take the place of the config's; 0 is at once, and each alone."""

    model_config = ConfigDict(extra="allow")
    enabled: bool | None = Field(default=None, strict=True)
    after: Duration | None = None
    digest: Duration | None = None


class Quiet(BaseModel):
    """A quiet span that begins on `days` (1 Monday to 7; all without) at `from` and ends at the next `to`."""

    model_config = ConfigDict(extra="allow")
    days: list[Annotated[int, Field(ge=1, le=7, strict=True)]] | None = Field(default=None, min_length=1, max_length=7)
    from_: Time = Field(alias="from")
    to: Time


class Preferences(BaseModel):
    """The whole."""

    model_config = ConfigDict(extra="allow")
    alerts: dict[str, dict[str, StrictBool | ChannelPreference]] = Field(default_factory=dict, max_length=500)
    channels: dict[str, StrictBool | ChannelPreference] = Field(default_factory=dict, max_length=50)
    quiet: list[Quiet] = Field(default_factory=list, max_length=50)
    time_zone: TimeZone | None = None


def checked(value: dict[str, Any], channels: Iterable[str]) -> Preferences:
    """Preferences that say something about `channels` only. Problem `bad_field`, `unknown_channel`."""
    said = valid(Preferences, value)
    known = sorted(channels)
    for channel in (*said.channels, *(c for wishes in said.alerts.values() for c in wishes)):
        if channel == INBOX:
            raise Problem("bad_field", "The inbox always gets the notice; preferences are about forwards.")
        if channel not in known:
            nearest = difflib.get_close_matches(channel, known, 1, 0.4)
            hint = f" Did you mean {nearest[0]}?" if nearest else ""
            raise Problem("unknown_channel", f"There is no channel {channel[:50]!r}.{hint}", known=known)
    return said
