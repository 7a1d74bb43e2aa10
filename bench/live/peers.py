"""`python -m bench.live.peers starlette|socketio PORT BOOTSTRAP TOPIC`: what people write with the usual libraries, so
that there is something to compare with: a bare Kafka consumer, and each message to everybody who is connected.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from aiokafka import AIOKafkaConsumer
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

Tell = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def following(bootstrap: str, topic: str, tell: Tell) -> AsyncIterator[None]:
    """Everything from now on."""
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="latest")
    await consumer.start()

    async def follow() -> None:
        async for message in consumer:
            await tell(message.value.decode())

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        await consumer.stop()


def starlette(bootstrap: str, topic: str) -> Any:
    """A loop of `send_text`."""
    sockets: set[WebSocket] = set()

    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        sockets.add(socket)
        try:
            while True:
                await socket.receive_text()
        except WebSocketDisconnect:
            sockets.discard(socket)

    async def tell(text: str) -> None:
        for socket in list(sockets):
            await socket.send_text(text)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with following(bootstrap, topic, tell):
            yield

    return Starlette(routes=[WebSocketRoute("/ws", endpoint)], lifespan=lifespan)


def socketio(bootstrap: str, topic: str) -> Any:
    """An `emit` to everybody."""
    import socketio as library  # noqa: PLC0415 - only this side needs it

    server = library.AsyncServer(async_mode="asgi", cors_allowed_origins="*")
    stack: list[Any] = []

    async def tell(text: str) -> None:
        await server.emit("m", text)

    async def start() -> None:
        stack.append(following(bootstrap, topic, tell))
        await stack[0].__aenter__()

    return library.ASGIApp(server, on_startup=start)


def main() -> None:
    """Serve until it is ended."""
    side, port, bootstrap, topic = sys.argv[1:]
    app = {"starlette": starlette, "socketio": socketio}[side](bootstrap, topic)
    uvicorn.run(app, host="127.0.0.1", port=int(port), log_level="error", ws="websockets-sansio", backlog=4096)


if __name__ == "__main__":
    main()
