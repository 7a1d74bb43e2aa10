"""Refusals as RFC 9457 problem details: a stable `code`, what happened, what it was about, what to do. Never
anything internal.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from starlette.responses import Response

M = TypeVar("M", bound=BaseModel)
# code → (HTTP status, title, what to do)
CODES: dict[str, tuple[int, str, str]] = {
    "unauthorized": (
        401,
        "The token is missing or not accepted",
        "Send `Authorization: Bearer <token>`; `tidings token` signs one.",
    ),
    "forbidden": (403, "This token may not do that", "Use a token with the scope that is named."),
    "not_found": (404, "There is no such thing", "Check the id; it may have been deleted."),
    "unknown_entity_type": (
        404,
        "This type of entities is not served here",
        "Add it to TIDINGS_ENTITY_TYPES, or use one that is.",
    ),
    "method_not_allowed": (405, "This path does not know that method", "See the documentation of this path."),
    "exists": (409, "The id is taken", "Change the existing one with PUT or PATCH, or choose another id."),
    "version_conflict": (
        412,
        "Somebody else changed it first",
        "Read it again, apply your change to what stands now, and send its ETag.",
    ),
    "unsubscribed": (
        409,
        "The channel was unsubscribed before its subscription was answered",
        "Subscribe again if it is still wanted.",
    ),
    "too_large": (413, "This is larger than the limit", "Send less, or raise the named setting."),
    "bad_json": (400, "The body is not valid JSON", "Send UTF-8 JSON; the position of the fault is given."),
    "bad_field": (422, "A field has a wrong value", "Correct the named fields."),
    "bad_request": (400, "The request can't be understood", "Correct what is named."),
    "bad_filter": (400, "The filter can't be understood", "See the filter language in the documentation."),
    "bad_expand": (400, "That can't be fetched here", "Name a backend and one of its paths as the settings have them."),
    "bad_position": (400, "This is no position of this channel", "Pass a `position` unchanged, as an answer gave it."),
    "bad_cursor": (
        400,
        "This is no cursor of this list",
        "Pass `next` unchanged, as a page gave it, or start without.",
    ),
    "bad_etag": (400, "This is no ETag of ours", 'Send the ETag as it was given, for example If-Match: "v3".'),
    "bad_frame": (400, "The frame can't be understood", "Send one JSON object with an `id` and one request."),
    "limit": (422, "This is more than the limit", "Send less, or raise the named setting."),
    "unknown_recipient": (
        422,
        "Neither a recipient nor a valid address",
        "Create the recipient first, or correct the entry.",
    ),
    "unknown_channel": (422, "This channel is not known here", "Use one of the known channels, or configure it."),
    "position_lost": (410, "The log can't be resumed from there", "Subscribe again without `since`, for a snapshot."),
    "behind": (503, "The answer is not there yet", "Try again in a moment, with the same position."),
    "log_away": (503, "The log does not answer", "Try again in a moment; what was sent may or may not have arrived."),
    "store_away": (503, "The database does not answer", "Try again in a moment."),
    "busy": (503, "Others are reading history", "Try again in a moment."),
    "takes_too_long": (
        503,
        "The log could not be read in the time that is allowed",
        "Ask for less, or run `tidings why`, `as-of` or `replay` near the log.",
    ),
    "too_many_connections": (429, "There are too many connections", "Close others first, or raise the named setting."),
    "rate_limited": (429, "Commands come faster than the limit", "Send them more slowly, or raise the named setting."),
    "keys_away": (503, "The key of this token is being looked for", "Try again in a moment."),
    "too_slow": (503, "What was sent was not read in time", "Come back with the last position, and read faster."),
    "not_ready": (503, "The gateway is still starting", "Try again in a moment."),
    "internal": (500, "Something broke here", "Tell the operator when it happened; the gateway's log has the reason."),
}


class Problem(Exception):
    """One refusal; `extra` are further members of the problem details."""

    def __init__(self, code: str, detail: str = "", *, headers: Mapping[str, str] | None = None, **extra: Any) -> None:
        self.code, self.detail, self.extra, self.headers = code, detail, extra, dict(headers or {})
        self.status, self.title, self.todo = CODES[code]
        super().__init__(f"{code}: {detail}")

    @property
    def retry(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in (429, 503)

    def members(self) -> dict[str, Any]:
        """The problem details."""
        given = {
            "type": f"urn:tidings:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
        }
        return given | {"detail": self.detail or self.title, "todo": self.todo} | self.extra

    def response(self) -> Response:
        """As an HTTP answer."""
        headers = self.headers | ({"retry-after": "1"} if self.retry else {})
        if self.status == 401:
            headers["www-authenticate"] = "Bearer"
        return Response(orjson.dumps(self.members()), self.status, headers, "application/problem+json")

    def frame(self) -> dict[str, Any]:
        """As the `error` of a live frame; `retry`: the same request may succeed later."""
        said = {name: self.extra[name] for name in ("scope", "limit", "value") if name in self.extra}
        return {"code": self.code, "message": self.detail or self.title, "retry": self.retry} | said


def too_large(name: str, limit: int, what: str) -> Problem:
    """A refusal that names the limit and its value."""
    return Problem("too_large", f"{what} may have {limit} bytes.", limit=name, value=limit)


def over(name: str, limit: int, what: str) -> Problem:
    """A refusal of too many of something."""
    return Problem("limit", f"At most {limit} {what}.", limit=name, value=limit)


def valid(model: type[M], value: object) -> M:
    """What was sent, as this model takes it. Problem `bad_field`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Problem("bad_field", first_fault(error)) from error


def first_fault(error: ValidationError) -> str:
    """The first thing wrong, for people, without the value given."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"])[:200]
    text = fault["msg"].removeprefix("Value error, ")
    return f"{place}: {text}" if place else text
