"""Event streams: the pushes of the WebSocket, resumed by their ids, refused before they begin, ended with a reason."""

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import gateway as gateway_module
from api.settings import Limits
from tests.integration.gateway_world import Door, Site


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


async def put(http: httpx.AsyncClient, entity_id: str, **body: Any) -> str:
    answer = await http.put(f"/v1/entities/vm/{entity_id}", json=body)
    assert answer.status_code == 202
    return str(answer.json()["position"])


async def test_a_stream_has_the_frames_of_the_websocket_and_resumes_by_their_ids(site: Site) -> None:
    low = {"key": "n", "op": "lt", "val": 5}
    async with site.gateway(limits=Limits(snapshot_rows=1)) as door, door.http() as http, door.socket() as socket:
        await put(http, "a", n=1)
        written = await put(http, "b", n=2)
        await http.get("/v1/entities/vm", params={"at_least": written})
        snapshot = await socket.ask(subscribe={"channel": "entities/vm", "filter": low})
        async with door.stream("entities/vm", filter=low) as stream:
            pages = [await stream.next() for _ in range(2)]
            assert [row["id"] for page in pages for row in page.frame["ok"]["snapshot"]] == ["a", "b"]
            assert [(p.id, p.frame["id"], p.frame["ok"].get("more")) for p in pages] == [
                ("", None, True),
                (snapshot["position"], None, None),
            ]
            await http.put(
                "/v1/entities/vm/c", content='{\n "n": 3 }\r\n', headers={"content-type": "application/json"}
            )
            await put(http, "a", n=7)
            await put(http, "b", n=4)
            told = [await stream.next() for _ in range(3)]
        pushed = [await socket.push() for _ in range(3)]
        assert [e.frame for e in told] == pushed
        assert [e.id for e in told] == [p["position"] for p in pushed]
        assert [e.frame["event"]["op"] for e in told] == ["updated", "left", "updated"]
        async with door.stream("entities/vm", last=told[0].id, filter=low, since=snapshot["position"]) as stream:
            again = [await stream.next() for _ in range(3)]
        assert again[0].frame["ok"] == {"channel": "entities/vm", "position": told[0].id, "resumed": True}
        assert [(e.id, e.frame) for e in again[1:]] == [(e.id, e.frame) for e in told[1:]]
        async with door.stream("inbox") as stream:
            assert (await stream.next()).frame["ok"]["counts"] == {"unread": 0, "unseen": 0}
            await http.post("/v1/notices", json={"to": ["u1"], "title": "hello"})
            raised = await stream.next()
            assert (raised.frame["event"]["op"], raised.id) == ("raised", raised.frame["position"])


async def test_what_can_be_refused_is_refused_before_the_stream_begins(site: Site) -> None:
    async with site.gateway(limits=Limits(connections_per_user=1)) as door, door.http() as http:
        lost = door.server.gateway.live.token("notices", {0: 0})

        async def refused(path: str, **headers: str) -> tuple[int, str]:
            answer = await http.get(f"/v1/sse?{path}", headers=headers)
            assert answer.headers["content-type"] == "application/problem+json"
            return answer.status_code, answer.json()["code"]

        assert await refused("") == (400, "bad_request")
        assert await refused("channel=inbox&sinse=x") == (400, "bad_request")
        assert await refused("channel=inbox", authorization="Bearer x") == (401, "unauthorized")
        assert await refused("channel=entities/nothing") == (404, "not_found")
        assert await refused("channel=entities/vm&filter={") == (400, "bad_filter")
        assert await refused('channel=entities/vm&filter={"op":"x"}') == (400, "bad_filter")
        assert await refused("channel=entities/vm&expand={}") == (400, "bad_request")
        assert await refused("channel=entities/vm&since=x") == (400, "bad_position")
        assert await refused("channel=entities/vm", **{"last-event-id": lost}) == (410, "position_lost")
        assert await refused("channel=inbox", origin="https://elsewhere.test") == (403, "forbidden")
        async with httpx.AsyncClient(base_url=door.base) as nobody:
            assert (await nobody.get("/v1/sse?channel=inbox")).status_code == 401
        async with door.http(scopes=()) as without:
            answer = await without.get("/v1/sse?channel=entities/vm")
            assert (answer.status_code, answer.json()["scope"]) == (403, "entities:read:vm")
        assert (await http.head("/v1/sse?channel=inbox")).headers["content-type"].startswith("text/event-stream")
        assert not door.server.gateway.connections
        async with door.stream("inbox") as stream:
            await stream.next()
            assert await refused("channel=inbox") == (429, "too_many_connections")


async def test_a_page_of_a_named_origin_reads_with_its_token_in_the_address_which_no_log_shows(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with site.gateway(origins=("https://app.test",)) as door:
        token = door.token()
        params = {"channel": "entities/vm", "access_token": token}
        async with (
            httpx.AsyncClient(base_url=door.base, headers={"origin": "https://app.test"}) as page,
            page.stream("GET", "/v1/sse", params=params) as answer,
        ):
            assert answer.headers["access-control-allow-origin"] == "https://app.test"
            assert "no-store" in answer.headers["cache-control"]
            lines = answer.aiter_lines()
            assert (await anext(lines)).startswith("retry: ")
    ours = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    assert ours
    assert not [text for text in ours if token in text]


async def test_a_stream_lives_by_comments_and_ends_with_a_reason(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gateway_module, "ROUND_S", 0.02)
    monkeypatch.setattr("api.access.tokens.LEEWAY_S", 0)
    async with site.gateway(limits=Limits(heartbeat=0.05)) as door:
        async with door.stream("entities/vm", ttl_s=2) as stream:
            position = (await stream.next()).id
            while stream.comments < 3:
                await stream.line()
            ended = await stream.next()
            assert (ended.name, ended.frame["error"]["code"], ended.id) == ("error", "unauthorized", position)
            await stream.end()
        live = door.server.gateway.live
        ahead = live.token("entities.vm", dict.fromkeys(live.vector("entities.vm"), 9))
        async with door.stream("entities/vm") as leaving, door.http() as waiting:
            await leaving.next()
            held = asyncio.create_task(waiting.get("/v1/sse", params={"channel": "entities/vm", "since": ahead}))
            await door.until(lambda: len(door.server.gateway.connections) == 2)
            await asyncio.gather(door.server.gateway.drain(), told_to_come_back(leaving))
            assert (await held).json()["detail"] == "The gateway is going away."
        assert (await told_to_leave(door)) == 503


async def told_to_come_back(stream: Any) -> None:
    ended = await stream.next()
    assert (ended.name, ended.frame["error"]["code"], ended.frame["error"]["retry"]) == ("error", "not_ready", True)
    await stream.end()


async def told_to_leave(door: Door) -> int:
    async with door.http() as http:
        return (await http.get("/v1/sse?channel=inbox")).status_code


async def test_a_handshake_behind_a_running_stream_is_none_and_the_stream_ends_with_its_client(site: Site) -> None:
    async with site.gateway() as door, door.http() as http:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
        head = b"Host: x\r\nAuthorization: Bearer %b\r\n" % door.token("two").encode()
        writer.write(b"GET /v1/sse?channel=entities/vm HTTP/1.1\r\n" + head + b"\r\n")
        gateway = door.server.gateway
        await door.until(lambda: len(gateway.connections) == 1)
        await reader.readuntil(b'"ok"')
        writer.write(
            b"GET /v1/ws HTTP/1.1\r\n" + head + b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        async with door.socket() as other:  # whatever came before was looked at
            await other.ask(subscribe={"channel": "entities/vm"})
            assert len(gateway.connections) == 2
        writer.transport.abort()
        await put(http, "a", text="so that it is written to")
        await door.until(lambda: not gateway.connections)


async def test_a_stream_that_nobody_reads_is_ended_and_costs_the_others_nothing(site: Site) -> None:
    async with (
        site.gateway(limits=Limits(write_buffer=100_000)) as door,
        door.http() as http,
        door.stream("entities/vm") as good,
    ):
        await good.next()
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)  # or the kernel takes in 32 MB for it
        slow.connect(("127.0.0.1", door.server.port))
        reader, writer = await asyncio.open_connection(sock=slow, limit=1)
        writer.write(
            b"GET /v1/sse?channel=entities/vm HTTP/1.1\r\nHost: x\r\n"
            b"Authorization: Bearer %b\r\n\r\n" % door.token("slow").encode()
        )
        gateway = door.server.gateway
        await door.until(lambda: len(gateway.connections) == 2)
        count = 0
        while all(c.open for c in gateway.connections):
            await put(http, "big", text="x" * 400_000)
            count += 1
            assert (await good.next()).frame["entity"]["text"]
        assert 1 < count < 60
        await door.until(lambda: len(gateway.connections) == 1)  # it has a moment to read why
        writer.close()
        assert reader is not None
