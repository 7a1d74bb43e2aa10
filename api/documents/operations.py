"""How a route says what it does: its `Operation` stands above its handler, and /openapi.json is made from it.

What an operation does not name (a status, a refusal, a member of an answer) does not leave the gateway: tests hold
every answer against it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http.requests import NDJSON

LINES = NDJSON[0]
MERGE_PATCH = "application/merge-patch+json"
EVENT_STREAM = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of `type`; `most` names the limit that is its largest value."""

    name: str
    means: str
    type: Any = str
    where: Literal["query", "header"] = "query"
    most: str | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path; put above its handler it makes the `Call`.

    `answers`: status → type of the JSON body, or media type → type; a type of null is text. `scope`: what a token
    needs, "" for any token, null without one. `takes`: type of the JSON body, or media type → type; `size`: its limit.
    `room`: what it belongs to, unless that is the module of its handler.
    """

    method: str
    path: str
    summary: str
    answers: Mapping[int, Any]
    scope: str | None = ""
    takes: Any = None
    size: str = "http_body"
    params: tuple[Param, ...] = ()
    problems: tuple[str, ...] = ()
    etag: bool = False
    room: str | None = None

    def __call__(self, endpoint: Callable[[Request], Awaitable[Response]]) -> Call:
        """The route that does it."""
        return Call(self, endpoint)


class Call(Route):
    """A route, and what it does."""

    def __init__(self, operation: Operation, endpoint: Callable[[Request], Awaitable[Response]]) -> None:
        super().__init__(operation.path, endpoint, methods=[operation.method])
        self.method, self.operation = operation.method, operation
        self.room = operation.room or endpoint.__module__.rpartition(".")[2].replace("_", "-")


AT_LEAST = Param("at_least", "A `position` that an answer gave: wait until this one holds what is before it.")
LIMIT = Param("limit", "How many at most.", int, most="page")
CURSOR = Param("cursor", "`next` of the page before.")
REPEAT = Param("Idempotency-Key", "1 to 200 characters; a repeat with the same key is taken once.", where="header")
IF_MATCH = Param("If-Match", "The ETag of the version that is changed, or `*`.", where="header")
IF_NONE_MATCH = Param("If-None-Match", "`*`: make it, unless it is there.", where="header")

# What goes wrong together.
READS = ("bad_position", "position_lost", "behind", "not_ready", "store_away")
PAGES = (*READS, "bad_cursor", "bad_request")
SENDS = ("bad_json", "bad_field", "too_large", "log_away", "not_ready")
