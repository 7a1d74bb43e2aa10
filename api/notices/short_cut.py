"""The short way of `POST /v1/notices`: a plain notice of somebody known goes from the parser to the intake, and its
answer to the transport, without a task, an ASGI application and its layers in between.

Whatever is out of the ordinary (a batch, a token not seen before, a field that needs the full check, everything that
is refused) is handed to the application, which answers as if there were no such way; what is answered here has the same
status, headers and body.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from api.access.tokens import is_id
from api.http.page import HEADERS
from api.http.request_ids import HEADER, request_id
from api.http.requests import NDJSON
from api.notices.intake import Said
from api.notices.plain import plain_notice
from api.problems import Problem
from topics.catalogue import NOTICES
from topics.ids import new_id

if TYPE_CHECKING:
    from api.gateway import Gateway

PATH = b"/v1/notices"
_NAME = HEADER.encode()
HEAD_END = b"\r\n\r\n"
LARGEST_HEAD = 4 * 1024
REMEMBERED = 1_000  # heads
_PASSING = (b"connection", b"idempotency-key", _NAME)  # heads that end a connection, or come once
LARGEST = 64 * 1024  # as much as uvicorn holds without anybody reading
_SECURITY = "".join(f"{name}: {value}\r\n" for name, value in {**HEADERS, "cache-control": "no-cache"}.items()).encode()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the headers of a request say that may go the short way; no key, and no name for it, where they name none."""

    token: str
    request_key: str
    name: str | None


@dataclass(frozen=True, slots=True)
class Head:
    """The first `size` bytes of a request, and what they say; a body of `length` bytes follows."""

    size: int
    length: int
    asked: Asked


class ShortCut:
    """One for a gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._heads: dict[bytes, Head] = {}
        self._accepted = gateway.metrics.requests.labels("POST", "202")
        self._default_headers: list[tuple[bytes, bytes]] = []
        self._default = b""

    @property
    def open(self) -> bool:
        """Whether notices can be said right now; the application knows how to wait, and what to say if they can't."""
        return self._gateway.writable.is_set() and self._gateway.live.knows(NOTICES)

    def known(self, data: bytes) -> Head | None:
        """The head of a whole request, if it was taken before: whoever sends many sends the same one again."""
        head = self._heads.get(data[: data.find(HEAD_END) + len(HEAD_END)])
        return head if head is not None and len(data) == head.size + head.length else None

    def remember(self, data: bytes, headers: Sequence[tuple[bytes, bytes]], length: int) -> None:
        """The head of a request that was taken, if `data` is all of that request and it does not end the connection."""
        size = data.find(HEAD_END) + len(HEAD_END)
        passing = any(name in _PASSING for name, _ in headers)
        asked = asked_by(headers)
        if asked and size + length == len(data) and size <= LARGEST_HEAD and not passing and data.startswith(b"POST "):
            if len(self._heads) >= REMEMBERED:
                self._heads.clear()
            self._heads[data[:size]] = Head(size, length, asked)

    def take(self, cycle: RequestResponseCycle, asked: Asked, body: bytes) -> bool:
        """Whether this request, whose body is whole, is answered here."""
        began, gateway = time.perf_counter(), self._gateway
        identity = gateway.tokens.known(asked.token)
        if identity is None or not identity.may("notices:write"):
            return False
        try:
            notice = plain_notice(body.decode(), gateway.settings.limits)
        except UnicodeDecodeError:
            return False
        if notice is None:
            return False
        request_key = asked.request_key or new_id()
        name = request_key if asked.name is None and not asked.request_key else request_id(asked.name)

        def answer(what: Said | Problem) -> None:
            if isinstance(what, Said):
                position = gateway.live.token(NOTICES, what.following)
                said = orjson.dumps({"ids": what.ids, "request_key": request_key, "position": position})
                self._write(cycle, name, 202, b"content-type: application/json\r\n", said)
                self._accepted.observe(time.perf_counter() - began)
                return
            response = what.response()
            described = b"".join(n + b": " + v + b"\r\n" for n, v in response.raw_headers if n != b"content-length")
            self._write(cycle, name, response.status_code, described, bytes(response.body))
            answered = gateway.metrics.requests.labels("POST", str(response.status_code))
            answered.observe(time.perf_counter() - began)

        gateway.intake.offer(notice, identity.user, request_key, answer)
        return True

    def _write(self, cycle: RequestResponseCycle, name: str, status: int, headers: bytes, body: bytes) -> None:
        """As the cycle's own `send` would, in one piece."""
        if cycle.disconnected or cycle.transport.is_closing():
            return
        cycle.response_started = cycle.response_complete = True
        if self._default_headers is not cycle.default_headers:  # they are others each second
            self._default_headers = cycle.default_headers
            self._default = b"".join(n + b": " + v + b"\r\n" for n, v in cycle.default_headers)
        close = b"" if cycle.keep_alive else b"connection: close\r\n"
        length = b"content-length: %d\r\n%b: %b\r\n" % (len(body), _NAME, name.encode())
        parts = (STATUS_LINE[status], self._default, headers, length, _SECURITY, close, b"\r\n", body)
        cycle.transport.write(b"".join(parts))
        if not cycle.keep_alive:
            cycle.transport.close()
        cycle.on_response()


def asked_by(headers: Sequence[tuple[bytes, bytes]]) -> Asked | None:
    """What they say, of a doubled one the first; null where only the application understands it."""
    named = {name: value.decode("latin-1") for name, value in reversed(headers)}
    kind, _, token = named.get(b"authorization", "").partition(" ")
    request_key = named.get(b"idempotency-key", "")
    if kind.lower() != "bearer" or (request_key and not is_id(request_key)):
        return None
    if named.get(b"content-type", "").partition(";")[0].strip().lower() in NDJSON:
        return None
    return Asked(token.strip(), request_key, named.get(_NAME) or None)
