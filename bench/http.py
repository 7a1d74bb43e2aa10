"""A small HTTP/1.1 client on asyncio streams with kept-alive connections, so that the client costs little beside what
it measures.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any


class Http:
    """A pool of connections to one server on this machine."""

    def __init__(self, host: str, port: int, token: str) -> None:
        self._address, self._token = (host, port), token
        self._free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON of one call."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        while self._free and self._free[-1][0].at_eof():  # the server closed it after a while of rest
            self._free.pop()[1].close()
        reader, writer = self._free.pop() if self._free else await asyncio.open_connection(*self._address)
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: {self._address[0]}:{self._address[1]}\r\n"
            f"authorization: Bearer {self._token}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(data)}\r\n\r\n"
        )
        writer.write(head.encode() + data)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        length = next((int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length:")), 0)
        answer = await reader.readexactly(length)
        self._free.append((reader, writer))
        return int(lines[0].split()[1]), json.loads(answer) if answer else None

    async def close(self) -> None:
        """Close what is kept alive."""
        for _, writer in self._free:
            writer.close()
        self._free.clear()
