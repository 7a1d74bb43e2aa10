"""How the gateway's page reaches the demo in the process of `tidings up`: one line of JSON there, one back, on
loopback.

The address holds a word made anew at each start, since every user of a machine can connect to its loopback ports.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

LINE = 4 * 1024 * 1024
TIMEOUT_S = 5.0
Answers = dict[str, Callable[[], Awaitable[Any]]]


class Hooks:
    """The demo's side: `answers` by the name of the question."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._word = secrets.token_urlsafe(24)
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; the address to hand to the gateway (secret)."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"demo://127.0.0.1:{port}/{self._word}?{'&'.join(self._answers)}"

    async def stop(self) -> None:
        """Close the port."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                word, _, question = (await reader.readline()).decode(errors="replace").strip().partition(" ")
                if hmac.compare_digest(word.encode(), self._word.encode()) and question in self._answers:
                    writer.write(json.dumps(await self._answers[question]()).encode() + b"\n")
                    await writer.drain()
        except (OSError, ValueError, TimeoutError):
            return  # whoever asked is gone, or is not the gateway
        finally:
            writer.close()


class Asker:
    """The gateway's side."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._port, self._word = parts.port, parts.path.strip("/")
        self.answered = frozenset(parts.query.split("&"))

    async def mail(self) -> list[dict[str, Any]]:
        """The mails that the demo's SMTP server took, newest last. OSError when `up` is away."""
        found: list[dict[str, Any]] = await self._ask("mail")
        return found

    async def stress(self) -> None:
        """Make this machine busy for some seconds. OSError when `up` is away."""
        await self._ask("stress")

    async def _ask(self, question: str) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=LINE)
            try:
                writer.write(f"{self._word} {question}\n".encode())
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
        if not line:
            raise ConnectionError("the demo gave no answer")
        return json.loads(line)
