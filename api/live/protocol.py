"""The frames that clients send, checked before anything is done with them. Unknown members are refused: a typing
error must not pass.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from api.problems import Problem, first_fault

Mark = Literal["seen", "read", "unread", "archived", "unarchived", "snoozed"]
Id = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]  # the log takes no NUL
RequestId = Annotated[int, Field(strict=True, ge=-(2**53), le=2**53)] | Annotated[str, Field(max_length=100)]


class Strict(BaseModel):
    """No unknown members, no change after."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Auth(Strict):
    """Who the client is."""

    token: str = Field(max_length=8 * 1024, repr=False)


class Expand(Strict):
    """Pushes carry what a backend of the settings answers at one of its paths, instead of what the log has."""

    backend: str = Field(min_length=1, max_length=100)
    path: str = Field(min_length=1, max_length=500)


class Subscribe(Strict):
    """Watch a channel: from a snapshot, from now on (`snapshot` false), or from a position (`since`)."""

    channel: str = Field(min_length=1, max_length=250)
    filter: dict[str, Any] | None = None
    snapshot: bool = True
    since: str | None = Field(default=None, max_length=4_096)
    expand: Expand | None = None


class Unsubscribe(Strict):
    """Watch it no longer."""

    channel: str = Field(min_length=1, max_length=250)


class MarkRequest(Strict):
    """`ids`, or all raised before `up_to`; `cmd` makes a repeat harmless; `until` (RFC 3339) only for a snooze."""

    cmd: Id
    as_: Mark = Field(alias="as")
    ids: tuple[Id, ...] | None = None
    all: bool = False
    up_to: str | None = Field(default=None, max_length=4_096)
    until: str | None = Field(default=None, max_length=40)

    @model_validator(mode="after")
    def _which(self) -> MarkRequest:
        if self.all != (self.up_to is not None) or self.all == (self.ids is not None):
            raise ValueError("give either `ids`, or `all` true with `up_to`")
        if (self.as_ == "snoozed") != (self.until is not None):
            raise ValueError("`until` belongs to `snoozed`, and only there")
        return self


class Ping(Strict):
    """Is somebody there?"""


class ClientFrame(Strict):
    """One request with an id that the answer repeats."""

    id: RequestId
    auth: Auth | None = None
    subscribe: Subscribe | None = None
    unsubscribe: Unsubscribe | None = None
    mark: MarkRequest | None = None
    ping: Ping | None = None

    @property
    def request(self) -> Auth | Subscribe | Unsubscribe | MarkRequest | Ping:
        """The one request."""
        return next(r for r in (self.auth, self.subscribe, self.unsubscribe, self.mark, self.ping) if r is not None)

    @model_validator(mode="after")
    def _one(self) -> ClientFrame:
        if sum(r is not None for r in (self.auth, self.subscribe, self.unsubscribe, self.mark, self.ping)) != 1:
            raise ValueError("a frame holds exactly one of auth, subscribe, unsubscribe, mark, ping")
        return self


class BadFrame(Exception):
    """A frame that is none; `request_id` if one could be read, so that the refusal can be matched."""

    def __init__(self, request_id: int | str | None, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.request_id, self.problem = request_id, problem


def client_frame(text: str) -> ClientFrame:
    """The frame in a text message. BadFrame."""
    try:
        given = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BadFrame(None, Problem("bad_frame", f"No JSON: {error.msg} at {error.pos}.")) from error
    request_id = given.get("id") if isinstance(given, dict) else None
    if isinstance(request_id, bool) or not isinstance(request_id, int | str) or len(str(request_id)) > 100:
        request_id = None
    try:
        return ClientFrame.model_validate(given)
    except ValidationError as error:
        raise BadFrame(request_id, Problem("bad_frame", first_fault(error))) from error
