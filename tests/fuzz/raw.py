"""A peer that keeps to no protocol: bytes on a socket, and what came back cut into WebSocket frames or HTTP answers."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Self

HANDSHAKE = (
    "GET /v1/ws HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATIENCE_S = 5.0


@dataclass(frozen=True)
class Frame:
    """One frame as RFC 6455 cuts it. `length`: what its head says where that is not the truth."""

    opcode: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0
    masked: bool = True
    length: int | None = None

    def __repr__(self) -> str:
        """Short, for there may be thousands."""
        odd = f", rsv={self.rsv}" * bool(self.rsv) + ", unmasked" * (not self.masked) + ", more" * (not self.fin)
        return f"<{self.opcode}: {self.payload[:20]!r} of {len(self.payload)}{odd}>"

    def encoded(self) -> bytes:
        """On the wire."""
        size = len(self.payload) if self.length is None else self.length
        first, mask = (self.fin << 7) | (self.rsv << 4) | self.opcode, self.masked << 7
        if size < 126:
            head = bytes((first, mask | size))
        elif size < 65_536:
            head = struct.pack("!BBH", first, mask | 126, size)
        else:
            head = struct.pack("!BBQ", first, mask | 127, size)
        return head + (b"\x00\x00\x00\x00" if self.masked else b"") + self.payload


class Peer:
    """A connection on which anything can be sent."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._came = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> bool:
        """Whether the other side still took it."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def shake_hands(self, token: str | None = None) -> None:
        """Become a WebSocket."""
        said = f"authorization: Bearer {token}\r\n" if token else ""
        self.send(f"{HANDSHAKE}{said}\r\n".encode())
        while b"\r\n\r\n" not in self._came:
            assert self._more(), self._came
        head, _, self._came = self._came.partition(b"\r\n\r\n")
        assert b" 101 " in head, head

    def finish(self) -> None:
        """Nothing more will be sent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def rest(self) -> bytes:
        """Everything until the other side ends."""
        while self._more():
            pass
        return self._came

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """(opcode, payload) of what the server says, one after the other, until it ends."""
        while True:
            if len(self._came) >= 2:
                first, size, begin = self._came[0], self._came[1], 2
                assert first & 0x70 == 0, "a server that sets reserved bits"
                assert size < 128, "a server that masks"
                if size > 125:
                    width = 2 if size == 126 else 8
                    begin += width
                    size = int.from_bytes(self._came[2:begin]) if len(self._came) >= begin else 1 << 62
                if len(self._came) >= begin + size:
                    payload, self._came = self._came[begin : begin + size], self._came[begin + size :]
                    yield first & 15, payload
                    continue
            if not self._more():
                assert not self._came, "half a frame"
                return

    def answers(self, count: int) -> list[dict[str, Any]]:
        """So many last answers to requests, in their order; fewer if the server ends before."""
        found: list[dict[str, Any]] = []
        for opcode, payload in self.frames() if count else ():
            if opcode == CLOSE:
                found.append({"closed": int.from_bytes(payload[:2])})
                break
            assert opcode == TEXT, "no answer for so long that the server asks whether anybody is there"
            frame: dict[str, Any] = json.loads(payload)
            if "id" in frame and not frame.get("ok", {}).get("more"):
                found.append(frame)
                if len(found) == count:
                    break
        return found

    def _more(self) -> bool:
        try:
            data = self._socket.recv(262_144)
        except ConnectionResetError:
            return False
        self._came += data
        return bool(data)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """`data` in pieces, as a network might hand it over."""
    ends = sorted({p % (len(data) + 1) for p in places} | {len(data)})
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False) if b > a]
