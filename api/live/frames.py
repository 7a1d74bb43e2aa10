"""Live frames, built once for every connection that wants them: as a WebSocket message, and as part of an event stream.

JSON texts that came from the log (an entity, a notice's metric) are spliced in as they are, so that nothing is parsed
and changed.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

TEXT = 0x81  # final frame, opcode text; a server's frames are not masked
_HEAD = {126: 4, 127: 10}  # bytes before the payload, by the second byte; otherwise 2


class Frame:
    """`message` is what a WebSocket gets; `position` is the id on an event stream, null where nobody can resume."""

    __slots__ = ("_event", "failed", "message", "position")

    def __init__(self, payload: bytes, position: str | None = None, *, failed: bool = False) -> None:
        self.message, self.position, self.failed = _message(payload), position, failed
        self._event: bytes | None = None

    @property
    def event(self) -> bytes:
        """One event of an event stream, as an HTTP chunk."""
        if self._event is None:
            payload = self.message[_HEAD.get(self.message[1], 2) :].replace(b"\n", b" ").replace(b"\r", b" ")
            name = b"event: error\n" if self.failed else b""
            at = b"id: %b\n" % self.position.encode() if self.position is not None else b""
            self._event = chunk(b"%b%bdata: %b\n\n" % (name, at, payload))
        return self._event


class Batch:
    """Frames that go out together, joined once for all who get them."""

    __slots__ = ("_event", "frames", "message")

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.message = b"".join([f.message for f in frames])
        self._event: bytes | None = None

    @property
    def event(self) -> bytes:
        """Events of an event stream, as HTTP chunks."""
        if self._event is None:
            self._event = b"".join([f.event for f in self.frames])
        return self._event


def chunk(data: bytes) -> bytes:
    """Part of a chunked HTTP body (RFC 9112, 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _message(payload: bytes) -> bytes:
    """One WebSocket text message (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", TEXT, 126, size) + payload
    return struct.pack("!BBQ", TEXT, 127, size) + payload


def answer(request_id: int | str | None, **ok: Any) -> Frame:
    """`{"id":…,"ok":{…}}`."""
    return Frame(orjson.dumps({"id": request_id, "ok": ok}))


def answer_text(request_id: int | str | None, ok: str, position: str | None = None) -> Frame:
    """As `answer`, with the JSON text of the members of `ok`; an event stream asks without an id."""
    return Frame(b'{"id":' + orjson.dumps(request_id) + b',"ok":{' + ok.encode() + b"}}", position)


def push(channel: str, position: str, rest: str = "") -> Frame:
    """`{"channel":…,"position":…}` with the JSON text of further members."""
    tail = f",{rest}" if rest else ""
    return Frame(f'{{"channel":{quoted(channel)},"position":"{position}"{tail}}}'.encode(), position)


def failure(request_id: int | str | None, error: dict[str, Any]) -> Frame:
    """`{"id":…,"error":{…}}`. On an event stream a position that is lost is forgotten by an empty id."""
    forgotten = "" if error["code"] == "position_lost" else None
    return Frame(orjson.dumps({"id": request_id, "error": error}), forgotten, failed=True)


def quoted(text: str) -> str:
    """A JSON string."""
    return orjson.dumps(text).decode()


def rfc3339(ms: int | None) -> str | None:
    """The log's milliseconds as RFC 3339 UTC; what no calendar holds is shown as the nearest end of it."""
    if ms is None:
        return None
    return f"{_second(min(max(ms, 0), 253_402_300_799_000) // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=256)  # what is pushed and listed was mostly raised within a few seconds
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def when(ms: int | None) -> str:
    """The JSON text of a time, or null."""
    return "null" if ms is None else f'"{rfc3339(ms)}"'
