"""What a user may say about forwards: per alert and channel, delays, digests and quiet hours. Further members are
kept as they are.
"""

from __future__ import annotations

import re
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from topics.durations import milliseconds

_clock = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
Duration = Annotated[int, BeforeValidator(milliseconds)]


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


class ChannelPreference(BaseModel):
    """How one channel is used."""

    model_config = ConfigDict(extra="allow")
    enabled: bool | None = Field(default=None, strict=True)
    after: Duration | None = None
    digest: Duration | None = None


class Quiet(BaseModel):
    """A quiet span of the day; `days` 1 (Monday) to 7."""

    model_config = ConfigDict(extra="allow")
    days: list[Annotated[int, Field(ge=1, le=7, strict=True)]] | None = None
    from_: Time = Field(alias="from")
    to: Time


class Preferences(BaseModel):
    """The whole."""

    model_config = ConfigDict(extra="allow")
    alerts: dict[str, dict[str, StrictBool | ChannelPreference]] = Field(default_factory=dict, max_length=500)
    channels: dict[str, StrictBool | ChannelPreference] = Field(default_factory=dict, max_length=50)
    quiet: list[Quiet] = Field(default_factory=list, max_length=50)
    time_zone: Annotated[str, Field(max_length=100), AfterValidator(_zone)] | None = None
