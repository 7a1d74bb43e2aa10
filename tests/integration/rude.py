"""Clients that go at any moment: before the handshake's end, in the middle of an answer, right after they asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random

from tests.integration.followers import HEAD
from tests.integration.gateway_process import token

COMMANDS: tuple[dict[str, dict[str, object]], ...] = (
    {"subscribe": {"channel": "entities/vm"}},
    {"subscribe": {"channel": "entities/vm", "filter": {"key": "n", "op": "lt", "val": 5}}},
    {"subscribe": {"channel": "inbox"}},
    {"unsubscribe": {"channel": "inbox"}},
    {"unsubscribe": {"channel": "entities/vm"}},
    {"mark": {"cmd": "c", "ids": ["a"], "as": "read"}},
    {"ping": {}},
    {"pong": {}},
)
PATIENCE_S = 5


async def come_and_go(port: int, dice: random.Random, count: int) -> None:
    """So many of them, forty at a time."""
    for _ in range(count // 40):
        await asyncio.gather(*(_visit(port, dice) for _ in range(40)))


async def _visit(port: int, dice: random.Random) -> None:
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        signed = f"host: a\r\nauthorization: Bearer {token(f'u{dice.randrange(5)}')}\r\n"
        kind = dice.choice(("socket", "socket", "stream", "stream", "head", "body"))
        if kind == "socket":
            await _talk(reader, writer, dice)
        elif kind == "stream":
            channel = dice.choice(("entities/vm", "inbox"))
            writer.write(f"GET /v1/sse?channel={channel} HTTP/1.1\r\n{signed}\r\n".encode())
            await _pause(dice)
            if dice.random() < 0.5:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(100), PATIENCE_S)
        elif kind == "head":
            writer.write(f"GET /v1/ws HTTP/1.1\r\n{signed}".encode()[: dice.randrange(200)])
            await _pause(dice)
        else:
            writer.write(f"POST /v1/notices HTTP/1.1\r\n{signed}content-length: 30\r\n\r\n{{".encode())
            await _pause(dice)
        if dice.random() < 0.7:
            writer.transport.abort()
        else:
            writer.close()


async def _talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dice: random.Random) -> None:
    writer.write(HEAD.format(token(f"u{dice.randrange(5)}")).encode())
    await reader.readuntil(b"\r\n\r\n")
    for number in range(dice.randrange(6)):
        payload = json.dumps({"id": number, **dice.choice(COMMANDS)}).encode()
        size = bytes((0x80 | len(payload),)) if len(payload) < 126 else b"\xfe" + len(payload).to_bytes(2)
        writer.write(b"\x81" + size + b"\0\0\0\0" + payload)
        await _pause(dice)


async def _pause(dice: random.Random) -> None:
    await asyncio.sleep(dice.choice((0, 0, 0, 0.001, 0.005, 0.02)))
