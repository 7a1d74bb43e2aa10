"""How long a person waits: from an entity's change, or a direct notice, to the push on the person's WebSocket."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from bench.figures import HEAD, percentile, spread
from bench.hop import hops
from bench.http import Http
from bench.site import TIDINGS, Site, site
from topics.catalogue import NOTICE_REQUESTS, NOTICES, Catalogue, entity_topic
from topics.cluster import Cluster
from topics.events import AlertCommitted, NoticeRaised, Record
from topics.fetch import reading

CHANGES, CHANGE_RATE = 1_000, 50.0
DIRECTS, DIRECT_RATE = 4_000, 200.0
ALERTS = """[[alert]]
name = "bench"
run = ["{python}", "{program}"]
entities = ["host"]
"""


async def measure(running: Site) -> None:
    """Print both paths, the bare hop beside them, and what share each step took."""
    scopes = "entities:write:host,entities:read:host,notices:write,configs,recipients"
    token = running.token("--user", "bench", "--scope", scopes)
    http = Http("127.0.0.1", running.port, token)
    async with connect(f"ws://127.0.0.1:{running.port}/v1/ws", max_size=None) as socket:
        await ask(socket, {"id": 1, "auth": {"token": token}})
        await ask(socket, {"id": 2, "subscribe": {"channel": "inbox"}})
        print(HEAD)
        hop = await hops(running.bootstrap, DIRECT_RATE, 2_000)
        print(spread("bare hop: one record through the broker, 200/s", hop))
        direct = await directs(http, socket)
        print(spread("direct notice: HTTP sent → push, 200/s", direct))
        status, made = await http.call("PUT", "/v1/recipients/bench", {"name": "Bench"})
        assert status in (200, 201), made
        config = {"name": "bench", "metric": {}, "channel": {"inbox": ["bench"]}}
        status, made = await http.call("POST", "/v1/alert-configs", config)
        assert status == 201, made
        wrapper = start_wrapper(running)
        try:
            change, accepted = await changes(http, socket)
        finally:
            wrapper.terminate()
            wrapper.wait(30)
        print(spread("entity change: HTTP sent → alert → push, 50/s", change))
        print(spread("  of it: HTTP sent → accepted", accepted))
        for name, took in (await steps(running)).items():
            print(spread(f"  of it: {name} (by the log's stamps, ± 1 ms)", took))
    await http.close()
    base = percentile(hop, 0.5)
    print(
        f"\nin bare hops (p50): direct {percentile(direct, 0.5) / base:.1f} (1 is the least), "
        f"entity change {percentile(change, 0.5) / base:.1f} (3 are the least)\n"
    )


async def ask(socket: ClientConnection, frame: dict[str, Any]) -> Any:
    """Send a frame and wait for its answer."""
    await socket.send(json.dumps(frame))
    while True:
        answer = json.loads(await socket.recv())
        if answer.get("id") == frame["id"]:
            assert "ok" in answer, answer
            return answer["ok"]


async def directs(http: Http, socket: ClientConnection) -> list[float]:
    """Milliseconds from POST /v1/notices to the push."""
    sent: dict[str, int] = {}

    async def send(i: int) -> None:
        sent[f"d{i}"] = time.monotonic_ns()
        status, answer = await http.call("POST", "/v1/notices", {"to": ["bench"], "title": f"d{i}"})
        assert status == 202, answer

    return await paced(send, socket, sent, DIRECTS, DIRECT_RATE)


async def changes(http: Http, socket: ClientConnection) -> tuple[list[float], list[float]]:
    """Milliseconds from PUT of an entity to the push of the alert's notice, and to its acceptance."""
    sent: dict[str, int] = {}
    accepted: list[float] = []

    async def send(i: int) -> None:
        sent[f"c{i}"] = begun = time.monotonic_ns()
        status, answer = await http.call("PUT", f"/v1/entities/host/h{i % 10}", {"n": f"c{i}"})
        assert status == 202, answer
        accepted.append((time.monotonic_ns() - begun) / 1e6)

    async with asyncio.timeout(60):  # until the alert runs: the first push shows it
        i = -1
        while True:
            await send(i)
            try:
                await asyncio.wait_for(pushed(socket), 1)
                break
            except TimeoutError:
                i -= 1
    accepted.clear()
    took = await paced(send, socket, sent, CHANGES, CHANGE_RATE)
    return took, accepted


async def pushed(socket: ClientConnection) -> str:
    """The title of the next notice that is pushed."""
    while True:
        frame = json.loads(await socket.recv())
        if frame.get("event", {}).get("op") == "raised":
            return str(frame["event"]["notice"]["title"])


async def paced(
    send: Callable[[int], Awaitable[None]], socket: ClientConnection, sent: dict[str, int], count: int, rate: float
) -> list[float]:
    """Send `count` at `rate` a second, whatever the answers do (open loop); milliseconds to each push."""
    took: dict[str, float] = {}

    async def receive() -> None:
        while len(took) < count:
            title = await pushed(socket)
            if title in sent and not title[1:].startswith("-"):
                took[title] = (time.monotonic_ns() - sent[title]) / 1e6

    receiving = asyncio.create_task(receive())
    sending: list[asyncio.Future[None]] = []
    begun = time.monotonic()
    for i in range(count):
        await asyncio.sleep(max(0.0, begun + i / rate - time.monotonic()))
        sending.append(asyncio.ensure_future(send(i)))
    await asyncio.gather(*sending)
    await asyncio.wait_for(receiving, 60)
    return list(took.values())


async def steps(running: Site) -> dict[str, list[float]]:
    """By the log: change → commit of the alert → notice, in milliseconds of the broker's clock."""
    catalogue, cluster = Catalogue(("host",)), Cluster(running.bootstrap)
    at: dict[tuple[str, int, int], int] = {}
    commits: dict[tuple[str, int, int], AlertCommitted] = {}
    raised: list[Record] = []
    async with reading(cluster, catalogue) as reader:
        for spot, end in (await reader.ends(reader.spots([entity_topic("host"), NOTICE_REQUESTS, NOTICES]))).items():
            async for record in reader.range(spot, 0, end):
                place = (record.topic, record.partition, record.offset)
                at[place] = record.timestamp
                if isinstance(record, Record) and isinstance(record.event, AlertCommitted):
                    commits[place] = record.event
                if isinstance(record, Record) and isinstance(record.event, NoticeRaised) and record.event.alert:
                    raised.append(record)
    first: list[float] = []
    second: list[float] = []
    for record in raised:
        event = record.event
        assert isinstance(event, NoticeRaised)
        cause = event.caused_by[0]
        place = (cause.topic, cause.partition, cause.offset)
        effect = next(e for e in commits[place].effects if e.notice_id == event.notice_id)
        change = next(c for c in effect.caused_by if c.topic.startswith("entities."))
        first.append(at[place] - at[change.topic, change.partition, change.offset])
        second.append(record.timestamp - at[place])
    return {"change logged → alert's commit logged": first, "commit logged → notice logged": second}


def start_wrapper(running: Site) -> subprocess.Popen[bytes]:
    """A wrapper with the benchmark's alert."""
    folder = Path(tempfile.mkdtemp(prefix="tidings-bench-"))
    program = Path(__file__).with_name("echo.py")
    (folder / "alerts.toml").write_text(ALERTS.format(python=sys.executable, program=program))
    return subprocess.Popen(
        [TIDINGS, "wrapper", str(folder / "alerts.toml")], env=running.environment(), stderr=subprocess.DEVNULL
    )


def main() -> None:
    """Run it in an installation of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder,
        site(Path(folder) / "data", "--no-demo") as running,
    ):
        asyncio.run(measure(running))
