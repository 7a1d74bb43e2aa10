"""A gateway as its operator sees it: readiness with its reasons, and a log that names connections and tells nothing
personal.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import httpx
import pytest
import sqlalchemy
import websockets

from api import database
from api.live import log as live_log
from api.server import Server
from api.settings import Limits
from tests.integration.gateway_process import GatewayProcess, token
from tests.integration.gateway_world import ALL, SECRET, Door, Site
from topics.catalogue import entity_topic
from topics.fetch import waiting_for_schema
from topics.produce import Producer

PRIVATE = "Anna-Schmidt"
TERMINATE = sqlalchemy.text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = :name")


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


async def _readiness(client: httpx.AsyncClient, reason: str) -> list[str]:
    """Once /readyz gives a reason that begins so, and "" once it gives none: all that it gives."""
    async with asyncio.timeout(30):
        while True:
            answer = await client.get("/readyz")
            status = answer.json()
            assert answer.status_code == (200 if status["ready"] else 503)
            assert status["ready"] is not bool(status["waiting_for"])
            if status["ready"] if not reason else any(r.startswith(reason) for r in status["waiting_for"]):
                found: list[str] = status["waiting_for"]
                return found
            await asyncio.sleep(0.05)


async def test_what_a_gateway_counts_comes_back_to_nothing_with_its_clients(site: Site) -> None:
    async with site.gateway(limits=Limits(resume=2)) as door, door.http() as http:

        def counted(name: str, **labels: str) -> float | None:
            return door.server.gateway.metrics.registry.get_sample_value(f"tidings_gateway_{name}", labels)

        async with door.socket() as one, door.stream("inbox") as stream:
            start = (await one.ask(subscribe={"channel": "entities/vm"}))["position"]
            await one.ask(subscribe={"channel": "inbox"})
            await stream.next()
            assert counted("connections", transport="websocket") == counted("connections", transport="sse") == 1
            assert (counted("subscriptions", kind="entities"), counted("subscriptions", kind="inbox")) == (1, 2)
            for number in range(3):
                await http.put("/v1/entities/vm/a", json={"n": number})
                await one.push()
            await one.ask(unsubscribe={"channel": "entities/vm"})
            assert counted("subscriptions", kind="entities") == 0
            lost = await one.ask(subscribe={"channel": "entities/vm", "since": start})
            assert lost["error"]["code"] == "position_lost"
            assert counted("subscriptions", kind="entities") == 0
            assert counted("resumes_total", kind="entities", outcome="too_far") == 1
            await one.ws.close()
        await door.until(lambda: not door.server.gateway.connections)
        assert counted("connections", transport="websocket") == counted("connections", transport="sse") == 0
        assert counted("subscriptions", kind="inbox") == 0
        assert counted("fan_out_seconds_count", kind="entities") == 3
        async with door.socket(ttl_s=-9) as late:  # within the leeway, and over at once
            await late.ws.wait_closed()
        assert counted("closes_total", code="4401") == 1


async def test_what_keeps_a_gateway_from_being_ready_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_log, "SILENT_S", 1.5)
    async with site.gateway() as door, httpx.AsyncClient(base_url=door.base) as client:
        gateway = door.server.gateway
        async with site.working():
            await _readiness(client, "")
        assert gateway.live._follower is not None
        (link,) = gateway.live._follower._links
        link._transport.pause_reading()  # nothing is heard
        assert len(await _readiness(client, "the broker, which has been silent for")) == 1
        link._transport.resume_reading()
        await _readiness(client, "")
        gateway.live._busy_since = 0.0
        assert await _readiness(client, "a record") == ["a record that takes long"]
        gateway.live._busy_since = None
        gateway._begun.clear()
        assert await _readiness(client, "rows") == ["rows of this log"]
        gateway._begun.set()
        noted, gateway.live._noted = gateway.live._noted, dict.fromkeys(gateway.live._noted, 2**60)
        gateway.live.caught_up = False
        assert await _readiness(client, "the log") == ["the log, which is read up to where it ended at the start"]
        gateway.live._noted = noted
        await _readiness(client, "")
        producer = Producer(site.cluster, site.catalogue, "a newer program")
        await (await producer.enqueue_bytes(entity_topic("vm"), "a", bytes.fromhex("c301 0123456789abcdef 00")))
        await producer.stop()
        assert await _readiness(client, "schemas") == ["schemas 0123456789abcdef"]
        gateway.draining = True
        assert await _readiness(client, "its clients") == ["schemas 0123456789abcdef", "its clients to leave"]
    assert waiting_for_schema == set()


async def test_a_gateway_without_a_database_or_keys_is_not_ready(
    kafka: str, namespace: str, tmp_path: Path, postgres_server: str, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE_S", 0.2)
    site = Site(kafka, namespace, tmp_path, postgres)
    await site.make()
    admin = sqlalchemy.create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    name = postgres.rpartition("/")[2]

    def serves(allowed: bool) -> None:
        with admin.connect() as connection:
            connection.exec_driver_sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS {allowed}")
            connection.execute(TERMINATE, {"name": name})

    async with site.gateway() as door, httpx.AsyncClient(base_url=door.base) as client:
        async with site.working():
            await _readiness(client, "")
        await asyncio.to_thread(serves, False)
        assert await _readiness(client, "The database") == ["The database does not answer"]
        await asyncio.to_thread(serves, True)
        await _readiness(client, "")
    admin.dispose()
    server = Server(site.settings(secret=None, jwks="http://127.0.0.1:1/keys"))
    serving = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        await Door(server).until(lambda: server.gateway.live.caught_up)
        assert await _readiness(client, "the keys of") == ["the keys of TIDINGS_JWKS"]
    await server.stop()
    await serving


async def test_the_log_names_connections_and_tells_nothing_personal(site: Site, tmp_path: Path) -> None:
    gateway = GatewayProcess(site, tmp_path / "gateway.log", write_buffer=200_000)
    await asyncio.to_thread(gateway.start)
    mine, foreign = token("u1", (*ALL, "audit")), token("u2", ()) + "x"
    bearer = {"authorization": f"Bearer {mine}"}
    try:
        async with site.working(), httpx.AsyncClient(base_url=gateway.url, timeout=30, headers=bearer) as client:
            await _readiness(client, "")
            for path, body in (
                ("/v1/notices", {"to": ["u1"], "title": PRIVATE, "text": PRIVATE, "data": {"name": PRIVATE}}),
                ("/v1/notices", {"to": ["u1"], "title": PRIVATE, "link": PRIVATE}),
                ("/v1/notices", {"to": ["u1"], "title": PRIVATE, "channel": {"email": [f"{PRIVATE}@example.test"]}}),
                ("/v1/alert-configs", {"name": PRIVATE, "channel": {"mail": [PRIVATE]}}),
                ("/v1/silences", {"for": "1h", "comment": PRIVATE}),
            ):
                await client.post(path, json=body)
            await client.put("/v1/recipients/u1", json={"name": PRIVATE, "addresses": {"email": PRIVATE}})
            await client.put("/v1/entities/vm/a", json={"owner": PRIVATE})
            await client.put("/v1/entities/vm/a", content=f"{{{PRIVATE}")
            await client.get("/v1/notices", params={"q": PRIVATE, "cursor": PRIVATE})
            await client.get("/v1/me", headers={"authorization": f"Bearer {foreign}"})
            await client.get(f"/{PRIVATE}")
            for access in (foreign, mine):
                query = {"channel": "entities/vm", "access_token": access}
                async with client.stream("GET", "/v1/sse", params=query, headers={"authorization": ""}) as events:
                    await anext(events.aiter_bytes())
            for number, given in enumerate((foreign, mine)):
                named = {"x-request-id": f"line-{number}", "authorization": f"Bearer {given}"}
                async with websockets.connect(gateway.live, additional_headers=named, max_queue=None) as line:
                    assert line.response is not None
                    assert line.response.headers["x-request-id"] == f"line-{number}"
                    with contextlib.suppress(websockets.ConnectionClosed):
                        for _ in range(20):
                            await line.send(json.dumps({"id": PRIVATE, "subscribe": PRIVATE, "token": mine}))
                        await line.wait_closed()
    finally:
        await asyncio.to_thread(gateway.stop)
    assert [
        secret for secret in (PRIVATE, mine, foreign, mine.rpartition(".")[2], SECRET) if secret in gateway.said
    ] == []
    ends = [line for line in gateway.said.splitlines() if "connection ended" in line]
    assert [(" code=4400 " in end, " user=u1 " in end, end.endswith(" request=line-1")) for end in ends] == [
        (True,) * 3
    ]
