"""What the gateway says on a live channel, as types, and why it ends a connection.

Nothing is built from these types, for frames are joined from texts that came from the log; /asyncapi.json is made from
them, and tests hold every frame against that.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from api.documents.answers import Counts, Entity, Notice
from api.live.protocol import RequestId

# 44xx: correct something before coming back; 45xx: come back, with some jitter, and resume.
CLOSE_CODES = {
    4400: "Too many frames that can't be understood",
    4401: "Not authenticated in time, a token that is not accepted, one that has expired, or was revoked",
    4429: "Commands keep coming too fast, or there are too many connections",
    4501: "The gateway is going away",
    4502: "The log begins anew: resume, or take a snapshot",
    4503: "A snapshot or a replay was broken off, a backend lags behind the log, or a token can't be checked yet",
    4504: "Read too slowly: what waited was dropped; resume",
}


class Authenticated(TypedDict):
    """Who the connection belongs to now."""

    user: str


class ExpandError(TypedDict):
    """Why the backend's answer is missing."""

    code: Literal[
        "timeout",
        "unreachable",
        "failed",
        "circuit_open",
        "bad_answer",
        "too_large",
        "forbidden",
        "not_found",
        "bad_path",
        "superseded",
    ]
    message: str


class ExpandedEntity(TypedDict):
    """With `expand`: what a backend says of the entity, any JSON, or why that is missing."""

    type: str
    id: str
    version: int
    at: str
    entity: NotRequired[Any]
    expand_error: NotRequired[ExpandError]


class EntitiesSubscribed(TypedDict):
    """Entities that match, so many a frame; all frames but the last have `more`, only the last has a `position`."""

    channel: str
    position: NotRequired[str]
    snapshot: NotRequired[list[Entity | ExpandedEntity]]
    more: NotRequired[Literal[True]]
    resumed: NotRequired[Literal[True]]


class InboxSubscribed(TypedDict):
    """The newest notices, or with `since` those that changed; `next`: the cursor of older ones, for GET /v1/notices."""

    channel: Literal["inbox"]
    position: NotRequired[str]
    snapshot: list[Notice]
    more: NotRequired[Literal[True]]
    resumed: NotRequired[Literal[True]]
    next: NotRequired[str | None]
    counts: NotRequired[Counts]


class Unsubscribed(TypedDict):
    """Nothing more comes from there."""

    channel: str


class MarkSent(TypedDict):
    """The mark is on the log; `done`: it had been taken before."""

    cmd: str
    position: str
    done: NotRequired[Literal[True]]


class Pong(TypedDict):
    """Somebody is there."""


class Answered(TypedDict):
    """A request was carried out; `id` is the request's, null on an event stream."""

    id: RequestId | None
    ok: EntitiesSubscribed | InboxSubscribed | Authenticated | Unsubscribed | MarkSent | Pong


class Fault(TypedDict):
    """`retry`: the same request may succeed later. What is missing is named: a scope, or a limit and its value."""

    code: str
    message: str
    retry: bool
    scope: NotRequired[str]
    limit: NotRequired[str]
    value: NotRequired[float]


class Refused(TypedDict):
    """A request was not carried out; `id` is null where none could be read."""

    id: RequestId | None
    error: Fault


class EntityEvent(TypedDict):
    """`left`: it no longer matches the filter."""

    op: Literal["created", "updated", "deleted", "left"]
    type: str
    id: str
    version: NotRequired[int]
    at: NotRequired[str]


class EntityChanged(TypedDict):
    """An entity changed; `entity` is the whole of it, as it stands now. With `expand` it is what the backend says, any
    JSON, or missing with the reason why.
    """

    channel: str
    position: str
    event: EntityEvent
    entity: NotRequired[Any]
    expand_error: NotRequired[ExpandError]


class InboxEvent(TypedDict):
    """`raised` and `updated` have a `notice`, all others `ids`; `cause` is the `cmd` of the mark."""

    op: str
    notice: NotRequired[Notice]
    ids: NotRequired[list[str]]
    at: NotRequired[str]
    until: NotRequired[str]
    cause: NotRequired[str]


class InboxChanged(TypedDict):
    """Something changed in the inbox; the counts hold at `position`."""

    channel: Literal["inbox"]
    position: str
    event: InboxEvent
    counts: Counts


class PositionMoved(TypedDict):
    """Nothing that is watched changed; resume from here."""

    channel: str
    position: str


ANSWERS: dict[str, Any] = {"answer": Answered, "refusal": Refused}
PUSHES: dict[str, Any] = {"entity": EntityChanged, "inbox": InboxChanged, "position": PositionMoved}
