"""A backend that counts what it is asked and misbehaves when its next behaviour says so."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from api.expand.backends import Backend

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]


def raw(*parts: bytes) -> Behaviour:
    """Say exactly this."""

    async def say(writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return say


def answer(body: bytes, *, status: str = "200 OK", headers: str = "") -> Behaviour:
    return raw(f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n".encode() + body)


def hung_up(*parts: bytes) -> Behaviour:
    """Say this, and no more for ever."""

    async def say(writer: asyncio.StreamWriter) -> None:
        await raw(*parts)(writer)
        writer.close()

    return say


async def hang(_writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.01)


async def flood_headers(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-%d: y\r\n" % 1 * 10_000)
        await writer.drain()


async def flood_interim(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000)
        await writer.drain()


def hundred_megabytes(head: bytes) -> Behaviour:
    async def say(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(1_600):
            writer.write(b"10000\r\n" + b"a" * 65_536 + b"\r\n" if b"chunked" in head else b"a" * 65_536)
            await writer.drain()

    return say


BOMB = gzip.compress(b'"' + b"a" * 50_000_000 + b'"')


class OddBackend:
    """`behaviours` are per path, the next one first; a path without one answers with what `says` gives."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None]] = []  # (path, Authorization)
        self.connections = 0
        self.behaviours: dict[str, list[Behaviour]] = {}
        self.says: Callable[[str, str | None], Any] = lambda path, _: {"path": path}
        self.hold: asyncio.Event | None = None  # until it is set, nothing is answered
        self.at_once = self.most_at_once = 0
        self.port = 0

    @asynccontextmanager
    async def serving(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[OddBackend]:
        self._tasks: set[asyncio.Task[None]] = set()

        def come(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
            self._tasks.add(task)

        server = await asyncio.start_server(come, "127.0.0.1", 0, ssl=tls)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def settings(self, **more: Any) -> Backend:
        given = {"url": f"http://127.0.0.1:{self.port}", "paths": ["/{type}/{id}"], "timeout": 20} | more
        return Backend.model_validate(given)

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _ in self.asked)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                path = head.split(" ")[1]
                lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
                self.asked.append((path, lines.get("authorization")))
                self.at_once += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
                try:
                    if self.hold is not None:
                        await self.hold.wait()
                    waiting = self.behaviours.get(path)
                    if waiting:
                        await waiting.pop(0)(writer)
                    else:
                        await answer(json.dumps(self.says(path, lines.get("authorization"))).encode())(writer)
                finally:
                    self.at_once -= 1
        writer.transport.abort()
