"""Live frames as bytes on the wire: built once, written to every connection that wants them.

JSON texts that came from the log (an entity, a notice's metric) are spliced in as they are, so that nothing is parsed
and changed.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson

TEXT = 0x81  # final frame, opcode text; a server's frames are not masked


def wire(payload: bytes) -> bytes:
    """One WebSocket text message (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((TEXT, size)) + payload
    if size < 65_536:
        return struct.pack("!BBH", TEXT, 126, size) + payload
    return struct.pack("!BBQ", TEXT, 127, size) + payload


def answer(request_id: int | str | None, **ok: Any) -> bytes:
    """`{"id":…,"ok":{…}}` on the wire."""
    return wire(orjson.dumps({"id": request_id, "ok": ok}))


def answer_text(request_id: int | str, ok: str) -> bytes:
    """As `answer`, with the JSON text of the members of `ok`."""
    return wire(b'{"id":' + orjson.dumps(request_id) + b',"ok":{' + ok.encode() + b"}}")


def push(channel: str, position: str, rest: str = "") -> bytes:
    """`{"channel":…,"position":…}` with the JSON text of further members."""
    tail = f",{rest}" if rest else ""
    return wire(f'{{"channel":{quoted(channel)},"position":"{position}"{tail}}}'.encode())


def failure(request_id: int | str | None, error: dict[str, Any]) -> bytes:
    """`{"id":…,"error":{…}}` on the wire."""
    return wire(orjson.dumps({"id": request_id, "error": error}))


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
