"""How a route says what it does: a `Call` is a route with its operation beside it, from which /openapi.json is made.

What an operation does not name (a status, a refusal, a member of an answer) does not leave the gateway: tests hold
every answer against it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from api.http.requests import JSON, NDJSON

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
    """`answers`: status → type of the JSON body, or media type → type; a type of null is text. `scope`: what a token
    needs, "" for any token, null without one. `takes`: media type → type. `size`: the limit of the body.
    """

    summary: str
    answers: Mapping[int, Any]
    scope: str | None = ""
    takes: Mapping[str, Any] = field(default_factory=dict)
    size: str | None = None
    params: tuple[Param, ...] = ()
    problems: tuple[str, ...] = ()
    etag: bool = False


class Call(Route):
    """One method of one path, and what it does."""

    def __init__(
        self, method: str, path: str, endpoint: Callable[[Request], Awaitable[Response]], operation: Operation
    ) -> None:
        super().__init__(path, endpoint, methods=[method])
        self.method, self.operation = method, operation


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


def json_of(type: Any) -> dict[str, Any]:
    """What is taken: JSON of one type."""
    return {JSON: type}
