"""A gateway under test: the real application on a free port, a real store, and a client that speaks the protocol."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from api.access.tokens import sign
from api.server import Server
from api.settings import GatewaySettings
from projections.sql.store import Store
from streams.worker import WorkerSettings, run
from tests.integration.documented import check_answer, check_frame
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.provision import apply

SECRET = "a secret of the tests, long enough for HS256"
ALL = ("entities:read:*", "entities:write:*", "notices:write", "configs", "recipients")


class Site:
    """One installation: topics of its own on the shared broker, a database, gateways and a worker when asked for."""

    def __init__(self, kafka: str, prefix: str, folder: Path, url: str | None = None) -> None:
        self.cluster, self.catalogue = Cluster(kafka), Catalogue(("vm", "task"), prefix=prefix, partitions=2)
        self.url = url or f"sqlite:///{folder}/tidings.db"

    async def make(self) -> None:
        await asyncio.to_thread(apply, self.cluster, self.catalogue)
        store = Store(self.url)
        await asyncio.to_thread(store.prepare)
        store.close()

    def settings(self, **more: Any) -> GatewaySettings:
        given = GatewaySettings(
            cluster=self.cluster, catalogue=self.catalogue, database=self.url, port=0, secret=SECRET, shutdown=3
        )
        return replace(given, **more)

    @asynccontextmanager
    async def gateway(self, **more: Any) -> AsyncIterator[Door]:
        server = Server(self.settings(**more))
        serving = asyncio.create_task(server.serve())
        try:
            door = Door(server)
            await door.until(lambda: server.gateway.ready)
            yield door
        finally:
            await server.stop()
            await serving

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        settings = WorkerSettings(self.cluster, self.catalogue, self.url, group=f"{self.catalogue.prefix}worker")
        task = asyncio.create_task(run(settings, stop))
        try:
            yield
        finally:
            stop.set()
            assert await task == 0


class Door:
    """A gateway from outside."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.base = f"http://127.0.0.1:{server.port}"

    async def until(self, holds: Callable[[], object], seconds: float = 30) -> None:
        async with asyncio.timeout(seconds):
            while not holds():  # noqa: ASYNC110 - a condition that nobody signals
                await asyncio.sleep(0.01)

    def token(self, user: str = "u1", scopes: tuple[str, ...] = ALL, **more: Any) -> str:
        return sign(SECRET, user, scopes, ttl_s=more.pop("ttl_s", 600), **more)

    @asynccontextmanager
    async def http(
        self, user: str = "u1", scopes: tuple[str, ...] = ALL, **more: Any
    ) -> AsyncIterator[httpx.AsyncClient]:
        headers = {"authorization": f"Bearer {self.token(user, scopes, **more)}"}
        hooks: dict[str, list[Any]] = {"response": [check_answer]}
        async with httpx.AsyncClient(base_url=self.base, headers=headers, timeout=30, event_hooks=hooks) as client:
            yield client

    @asynccontextmanager
    async def socket(self, user: str = "u1", scopes: tuple[str, ...] = ALL, **more: Any) -> AsyncIterator[Talk]:
        async with websockets.connect(self.base.replace("http", "ws") + "/v1/ws", max_size=None, max_queue=None) as ws:
            talk = Talk(ws)
            await talk.ask(auth={"token": self.token(user, scopes, **more)})
            yield talk

    @asynccontextmanager
    async def stream(
        self, channel: str, last: str | None = None, ttl_s: float = 600, **asked: Any
    ) -> AsyncIterator[Stream]:
        """An event stream of the user u1; objects among what is `asked` go as JSON."""
        headers = {"authorization": f"Bearer {self.token(ttl_s=ttl_s, filters=asked.pop('filters', None))}"}
        headers |= {"last-event-id": last} if last is not None else {}
        params = {"channel": channel, **{k: v if isinstance(v, str) else json.dumps(v) for k, v in asked.items()}}
        async with (
            httpx.AsyncClient(base_url=self.base, headers=headers, timeout=30) as client,
            client.stream("GET", "/v1/sse", params=params) as answer,
        ):
            found = Stream(answer)
            if answer.status_code != 200:
                found.refused = json.loads(await answer.aread())
            yield found


class Talk:
    """One conversation: answers by id, pushes by channel."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self.pushes: list[dict[str, Any]] = []
        self._ids = itertools.count(1)

    async def receive(self, seconds: float = 20) -> dict[str, Any]:
        async with asyncio.timeout(seconds):
            text = await self.ws.recv()
        check_frame(str(text))
        found: dict[str, Any] = json.loads(text)
        return found

    async def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request; `ok` of several frames is joined. Errors come as they are."""
        request_id = next(self._ids)
        await self.ws.send(json.dumps({"id": request_id, **request}))
        snapshot: list[Any] = []
        while True:
            frame = await self.receive()
            if frame.get("id") != request_id:
                self.pushes.append(frame)
                continue
            ok = frame.get("ok")
            if ok is None:
                return frame
            if "snapshot" in ok:
                snapshot += ok["snapshot"]
                ok["snapshot"] = snapshot
            if not ok.get("more"):
                return dict(ok)

    async def push(self, seconds: float = 20) -> dict[str, Any]:
        return self.pushes.pop(0) if self.pushes else await self.receive(seconds)


class Event(NamedTuple):
    """One event of a stream, as a browser has it: `id` is the last that came."""

    name: str
    id: str
    frame: dict[str, Any]


class Stream:
    """An event stream, read as the HTML standard says."""

    def __init__(self, answer: httpx.Response) -> None:
        self._lines = answer.aiter_lines()
        self.id, self.comments = "", 0
        self.refused: dict[str, Any] | None = None

    async def line(self, seconds: float = 20) -> str:
        """The next line that is no comment."""
        async with asyncio.timeout(seconds):
            line = await anext(self._lines)
        self.comments += line.startswith(":")
        return line

    async def next(self, seconds: float = 20) -> Event:
        """The next event."""
        name, data = "message", ""
        while (line := await self.line(seconds)) or not data:
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "event":
                name = value
            elif field == "id":
                self.id = value
            elif field == "data":
                data += value
        check_frame(data)
        return Event(name, self.id, json.loads(data))

    async def end(self) -> None:
        """Nothing more comes, and the answer is whole."""
        async with asyncio.timeout(20):
            assert not [line async for line in self._lines if line]
