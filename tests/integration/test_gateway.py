"""The gateway on a real broker: who may come in, what is refused and how, live entities, and its end."""

import asyncio
import contextlib
import gc
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from websockets.server import ServerProtocol

from api.http import protocol as http_protocol
from api.http.protocol import BoundedHttpProtocol
from api.live.websocket import WebSocketConnection
from api.server import Server
from api.settings import Limits
from tests.integration.gateway_world import ALL, Door, Site, Talk


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


async def test_a_change_reaches_those_who_watch_and_a_snapshot_holds_it(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as watcher:
        start = await watcher.ask(subscribe={"channel": "entities/vm"})
        assert start["snapshot"] == []
        assert start["position"]
        sent = await http.put("/v1/entities/vm/web%2F1", content='{"name":"web","cpu":1.10}')
        assert sent.status_code == 202
        assert sent.json()["event_id"]
        told = await watcher.push()
        assert told["event"] | {"at": 0, "version": 0} == {
            "op": "updated",
            "type": "vm",
            "id": "web/1",
            "at": 0,
            "version": 0,
        }
        assert told["entity"] == {"name": "web", "cpu": 1.10}
        async with door.socket() as late:
            snapshot = (await late.ask(subscribe={"channel": "entities/vm"}))["snapshot"]
        assert [(row["id"], row["type"], row["entity"]) for row in snapshot] == [
            ("web/1", "vm", {"name": "web", "cpu": 1.1})
        ]
        read = await http.get("/v1/entities/vm/web%2F1", params={"at_least": sent.json()["position"]})
        assert read.status_code == 200
        assert '"cpu":1.10' in read.text
        await http.delete("/v1/entities/vm/web%2F1")
        assert (await watcher.push())["event"]["op"] == "deleted"


async def test_an_entity_that_no_longer_matches_leaves(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as watcher:
        await watcher.ask(subscribe={"channel": "entities/vm", "filter": {"key": "cpu", "op": "gt", "val": 50}})
        for cpu in (10, 60, 70, 20, 10):
            await http.put("/v1/entities/vm/a", json={"cpu": cpu})
        seen = [(await watcher.push())["event"]["op"] for _ in range(3)]
        assert seen == ["updated", "updated", "left"]


async def test_ndjson_answers_each_line(site: Site) -> None:
    lines = [
        '{"id":"a","op":"created","body":{"n":1}}',
        "garbage",
        '{"id":"b","body":{"n":2},"version":7}',
        '{"id":"c"}',
    ]
    async with site.gateway() as door, door.http() as http:
        answer = await http.post(
            "/v1/entities/vm", content="\n".join(lines), headers={"content-type": "application/x-ndjson"}
        )
        body = answer.json()
        assert answer.status_code == 202
        assert (body["accepted"], body["refused"]) == (2, 2)
        assert [r.get("error", {}).get("code") for r in body["results"]] == [None, "bad_json", None, "bad_field"]
        listed = (await http.get("/v1/entities/vm", params={"at_least": body["position"]})).json()
        assert [(i["id"], i["entity"]) for i in listed["items"]] == [("a", {"n": 1}), ("b", {"n": 2})]
        assert listed["items"][1]["version"] == 7


async def test_lists_are_paged_and_filtered_as_pushes_are(site: Site) -> None:
    async with site.gateway() as door, door.http() as http:
        lines = "\n".join(json.dumps({"id": f"v{i:02}", "body": {"n": i}}) for i in range(25))
        sent = await http.post("/v1/entities/vm", content=lines, headers={"content-type": "application/x-ndjson"})
        query: dict[str, Any] = {
            "at_least": sent.json()["position"],
            "limit": 10,
            "filter": '{"key":"n","op":"ge","val":5}',
        }
        ids, cursor = [], None
        while True:
            page = (await http.get("/v1/entities/vm", params=query | ({"cursor": cursor} if cursor else {}))).json()
            ids += [i["id"] for i in page["items"]]
            cursor = page["next"]
            if cursor is None:
                break
        assert ids == [f"v{i:02}" for i in range(5, 25)]


async def test_without_a_good_token_nothing_is_told(site: Site) -> None:
    async with site.gateway(limits=Limits(auth=0.3)) as door:
        async with httpx.AsyncClient(base_url=door.base) as nobody:
            for path in ("/v1/me", "/v1/notices", "/v1/entities/vm", "/v1/alert-configs"):
                refused = await nobody.get(path)
                assert (refused.status_code, refused.json()["code"]) == (401, "unauthorized")
            assert (await nobody.get("/healthz")).status_code == 200
            garbage = await nobody.get("/v1/me", headers={"authorization": "Bearer x.y.z"})
            assert garbage.json()["code"] == "unauthorized"
        async with door.http(ttl_s=-60) as late:
            assert "expired" in (await late.get("/v1/me")).json()["detail"]
        async with door.http(scopes=("entities:read:task",)) as poor:
            assert (await poor.get("/v1/entities/vm")).json()["code"] == "forbidden"
            assert (await poor.put("/v1/entities/task/1", json={})).json()["code"] == "forbidden"
            assert (await poor.get("/v1/me")).json() == {
                "user": "u1",
                "scopes": ["entities:read:task"],
                "entity_types": ["task"],
                "demo": False,
            }
        async with websockets.connect(door.base.replace("http", "ws") + "/v1/ws") as ws:
            await ws.send('{"id":1,"subscribe":{"channel":"inbox"}}')
            assert json.loads(await ws.recv())["error"]["code"] == "unauthorized"
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await ws.recv()
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4401


async def test_tokens_in_the_handshake_and_foreign_origins(site: Site) -> None:
    async with site.gateway() as door:
        url, token = door.base.replace("http", "ws") + "/v1/ws", door.token("ann")
        async with websockets.connect(url, additional_headers={"authorization": f"Bearer {token}"}) as ws:
            await ws.send('{"id":1,"ping":{}}')
            assert json.loads(await ws.recv()) == {"id": 1, "ok": {}}
        protocols = [websockets.Subprotocol("tidings.v1"), websockets.Subprotocol(f"tidings.token.{token}")]
        async with websockets.connect(url, subprotocols=protocols, origin=websockets.Origin(door.base)) as ws:
            assert ws.subprotocol == "tidings.v1"
            await ws.send('{"id":"x","ping":{}}')
            assert json.loads(await ws.recv()) == {"id": "x", "ok": {}}
        for foreign in ("https://evil.test", "http://["):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(url, origin=websockets.Origin(foreign))
            assert refused.value.response.status_code == 403
            assert json.loads(refused.value.response.body)["code"] == "forbidden"
        assert not door.server.gateway.connections


HANDSHAKE = {
    "connection": "keep-alive, Upgrade",
    "upgrade": "WebSocket",
    "sec-websocket-version": "13",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
}


async def test_a_handshake_has_an_id_and_one_that_is_none_is_told_so(site: Site) -> None:
    async with site.gateway() as door, httpx.AsyncClient(base_url=door.base) as http:
        url, named = door.base.replace("http", "ws") + "/v1/ws?x=1", {"x-request-id": "mine"}
        async with websockets.connect(url, additional_headers=named) as ws:
            assert ws.response is not None
            assert ws.response.headers["x-request-id"] == "mine"
            assert [c.id for c in door.server.gateway.connections] == ["mine"]
        refused = await http.get("/v1/ws", headers=HANDSHAKE | named | {"origin": "https://evil.test"})
        assert (refused.status_code, refused.headers["x-request-id"]) == (403, "mine")
        for wrong in ({"sec-websocket-version": "12"}, {"sec-websocket-key": "short"}, {"sec-websocket-key": ""}):
            told = await http.get("/v1/ws", headers=HANDSHAKE | named | wrong)
            assert (told.status_code, told.headers["x-request-id"]) == (400, "mine")
        assert (await http.post("/v1/ws", headers=HANDSHAKE)).status_code == 405
        assert (await http.get("/v1/ws")).status_code == 404
        for elsewhere, status in (("/v1/other", 404), ("/healthz", 200)):
            assert (await http.get(elsewhere, headers=HANDSHAKE)).status_code == status
        await door.until(lambda: not door.server.gateway.connections)


async def test_a_connection_that_is_over_leaves_nothing_to_be_looked_for(site: Site) -> None:
    kinds = (WebSocketConnection, ServerProtocol, BoundedHttpProtocol)

    def left() -> int:
        return sum(type(o) in kinds for o in gc.get_objects())

    async with site.gateway() as door:
        gc.collect()
        gc.disable()
        try:
            before = left()
            async with door.socket() as talk:
                await talk.ask(subscribe={"channel": "entities/vm"})
                assert left() == before + 2  # the handshake's protocol is gone
            await door.until(lambda: left() == before)
        finally:
            gc.enable()


async def test_garbage_gets_a_clear_answer_and_harms_nobody_else(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as good:
        async with door.socket() as bad:
            for text in (
                "nonsense",
                "[]",
                "{}",
                '{"id":7}',
                '{"id":7,"ping":{},"auth":{"token":"x"}}',
                '{"id":7,"pong":{}}',
            ):
                await bad.ws.send(text)
                assert (await bad.receive())["error"]["code"] == "bad_frame"
            await bad.ws.send(b"\x00\x01")
            assert (await bad.receive())["error"]["code"] == "bad_frame"
            refused = await bad.ask(subscribe={"channel": "entities/nothing"})
            assert refused["error"]["code"] == "not_found"
            refused = await bad.ask(
                subscribe={"channel": "entities/vm", "filter": {"key": "a", "op": "like", "val": 1}}
            )
            assert refused["error"]["code"] == "bad_filter"
            refused = await bad.ask(subscribe={"channel": "entities/vm", "since": "!!"})
            assert refused["error"]["code"] == "bad_position"
            assert "position" in await bad.ask(subscribe={"channel": "entities/vm"})
            await bad.ws.send("x" * 70_000)
            await bad.ws.wait_closed()
            assert bad.ws.close_code == 1009
        assert await good.ask(ping={}) == {}
        cases = [
            ("PUT", "/v1/entities/vm/a", b"{", 400, "bad_json"),
            ("PUT", "/v1/entities/vm/a", b'{"a":NaN}', 400, "bad_json"),
            ("PUT", "/v1/entities/vm/a", b"\xff", 400, "bad_json"),
            ("PUT", "/v1/entities/vm/a", b"[" * 5_000, 400, "bad_json"),
            ("PUT", "/v1/entities/vm/a", b"[1]", 400, "bad_json"),
            ("PUT", "/v1/entities/vm/a", b" " * 600_000, 413, "too_large"),
            ("PUT", "/v1/entities/nothing/a", b"{}", 404, "unknown_entity_type"),
            ("PUT", "/v1/entities/vm/" + "x" * 201, b"{}", 422, "bad_field"),
            ("GET", "/v1/entities/vm?filter=%7B", None, 400, "bad_json"),
            ("GET", "/v1/entities/vm?limit=0", None, 400, "bad_request"),
            ("GET", "/v1/entities/vm?cursor=%C3%A4", None, 400, "bad_cursor"),
            ("GET", "/v1/entities/vm?at_least=AAAA", None, 400, "bad_position"),
            ("GET", "/v1/nowhere", None, 404, "not_found"),
            ("DELETE", "/v1/me", None, 405, "method_not_allowed"),
            ("POST", "/v1/notices", b'{"to":["u1"]}', 422, "bad_field"),
            ("POST", "/v1/notices", b'{"to":["u1"],"title":"t","link":"javascript:alert(1)"}', 422, "bad_field"),
            ("POST", "/v1/alert-configs", b'{"name":"x","channel":{"email":"u1"}}', 422, "bad_field"),
            ("POST", "/v1/alert-configs", b'{"name":"x","metric":%s}' % (b"[" * 100 + b"]" * 100), 400, "bad_json"),
            ("POST", "/v1/alert-configs", b'{"name":"x","channel":{"mail":["u1"]}}', 422, "unknown_channel"),
            ("POST", "/v1/alert-configs", b'{"name":"x","channel":{"inbox":["nobody"]}}', 422, "unknown_recipient"),
        ]
        for method, path, content, status, code in cases:
            answer = await http.request(method, path, content=content)
            assert (answer.status_code, answer.json()["code"]) == (status, code), (method, path, answer.text)
            assert answer.headers["content-type"] == "application/problem+json"


async def test_an_enforced_filter_hides_what_it_excludes(site: Site) -> None:
    mine = {"vm": {"key": "account", "op": "eq", "val": 7}}
    async with site.gateway() as door, door.http() as http, door.socket(filters=mine) as watcher:
        await http.put("/v1/entities/vm/theirs", json={"account": 8})
        sent = (await http.put("/v1/entities/vm/mine", json={"account": 7})).json()
        async with door.http(filters=mine) as narrow:
            listed = (await narrow.get("/v1/entities/vm", params={"at_least": sent["position"]})).json()
            assert [i["id"] for i in listed["items"]] == ["mine"]
            assert (await narrow.get("/v1/entities/vm/theirs")).status_code == 404
        start = await watcher.ask(subscribe={"channel": "entities/vm"})
        assert [r["id"] for r in start["snapshot"]] == ["mine"]
        for owner in (8, 9):
            await http.put("/v1/entities/vm/theirs", json={"account": owner})
            await http.delete("/v1/entities/vm/theirs")
        await http.put("/v1/entities/vm/mine", json={"account": 8})
        assert (await watcher.push())["event"] == {"op": "left", "type": "vm", "id": "mine"}
        async with door.socket(filters=mine) as back:
            again = await back.ask(subscribe={"channel": "entities/vm", "since": start["position"]})
            assert again["resumed"] is True
            assert (await back.push())["event"] == {"op": "left", "type": "vm", "id": "mine"}
    async with site.gateway() as restarted:
        async with restarted.http() as http:
            await http.put("/v1/entities/vm/last", json={"account": 1})
        async with restarted.socket(filters=mine) as back:  # which versions it held then is not known to this process
            lost = await back.ask(subscribe={"channel": "entities/vm", "since": start["position"]})
            assert lost["resumed"] if "resumed" in lost else lost["error"]["code"] == "position_lost"


async def test_a_resume_from_too_far_back_is_refused_and_an_idle_client_stays_fit(site: Site) -> None:
    async with site.gateway(limits=Limits(resume=30)) as door, door.http() as http, door.socket() as idle:
        nothing = {"key": "never", "op": "exists"}
        start = await idle.ask(subscribe={"channel": "entities/vm", "filter": nothing})
        position = start["position"]
        for i in range(45):
            await http.put(f"/v1/entities/vm/v{i % 3}", json={"i": i})
        idle_frames = 0
        while idle_frames < 3:
            frame = await idle.push()
            assert set(frame) == {"channel", "position"}
            position, idle_frames = frame["position"], idle_frames + 1
        async with door.socket() as back:
            lost = await back.ask(subscribe={"channel": "entities/vm", "since": start["position"]})
            assert lost["error"] | {"message": ""} == {"code": "position_lost", "message": "", "retry": False}
            assert (await back.ask(subscribe={"channel": "entities/vm", "since": position}))["resumed"] is True


async def test_a_reader_that_does_not_read_is_cut_off_told_to_come_back_and_misses_nothing(site: Site) -> None:
    limits = Limits(write_buffer=256 * 1024)
    async with site.gateway(limits=limits) as door, door.http() as http, door.socket() as good:
        gateway = door.server.gateway
        async with door.socket() as slow:
            slow.ws.transport.pause_reading()
            await slow.ws.send('{"id":9,"subscribe":{"channel":"entities/vm","snapshot":false}}')
            await good.ask(subscribe={"channel": "entities/vm", "snapshot": False})
            await door.until(lambda: sum(len(c.subscriptions) for c in gateway.connections) == 2)
            sent = 0
            while all(c.open for c in gateway.connections):
                sent += 1
                assert sent < 60
                await http.put("/v1/entities/vm/a", json={"n": sent, "x": "y" * 200_000})
                assert (await good.push())["event"]["op"] == "updated"
            slow.ws.transport.resume_reading()
            seen: list[int] = []
            position = (await slow.receive())["ok"]["position"]
            with contextlib.suppress(websockets.ConnectionClosed):
                while True:
                    frame = await slow.receive()
                    seen, position = [*seen, frame["entity"]["n"]], frame["position"]
            assert slow.ws.close_code == 4504
        async with door.socket() as back:
            assert (await back.ask(subscribe={"channel": "entities/vm", "since": position}))["resumed"] is True
            seen += [(await back.push())["entity"]["n"] for _ in range(sent - len(seen))]
        assert seen == list(range(1, sent + 1))
        assert await good.ask(ping={}) == {}


async def test_answers_keep_their_place_among_pushes_that_wait_to_go_out_together(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as one, door.socket() as other:
        for talk in (one, other):
            await talk.ask(subscribe={"channel": "entities/vm", "snapshot": False})

        async def change(n: int) -> None:
            sent = (await http.put("/v1/entities/vm/a", json={"n": n})).json()
            await http.get("/v1/entities/vm", params={"at_least": sent["position"]})  # it is folded, and handed out

        def told(talk: Talk) -> list[int]:
            seen, talk.pushes = [p["entity"]["n"] for p in talk.pushes], []
            return seen

        await change(1)
        assert [(await talk.push())["entity"]["n"] for talk in (one, other)] == [1, 1]
        handing_out = door.server.gateway.entities["vm"]._fan_out
        await door.until(lambda: handing_out._task is None)
        handing_out._task = asyncio.current_task()  # it rests, so that no other round comes by itself
        await change(2)
        await change(3)
        assert (await one.ask(ping={}), told(one)) == ({}, [2, 3])
        await change(4)
        late = await one.ask(unsubscribe={"channel": "entities/vm"})
        assert (late, told(one)) == ({"channel": "entities/vm"}, [4])
        await change(5)
        async with door.socket() as new:
            start = await new.ask(subscribe={"channel": "entities/vm"})
            assert ([r["entity"]["n"] for r in start["snapshot"]], told(new)) == ([5], [])
            await change(6)
            assert (await new.ask(ping={}), told(new)) == ({}, [6])
        assert (await one.ask(ping={}), told(one)) == ({}, [])
        assert (await other.ask(ping={}), told(other)) == ({}, [2, 3, 4, 5, 6])


async def test_metrics_page_and_headers(site: Site) -> None:
    async with site.gateway(metrics_port=0) as door, httpx.AsyncClient(base_url=door.base) as client:
        page = await client.get("/")
        assert page.status_code == 200
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"
        assert page.headers["x-content-type-options"] == "nosniff"
        script = await client.get("/tidings/app.js")
        assert script.status_code == 200
        assert "javascript" in script.headers["content-type"]
        assert (await client.get("/tidings/..%2f..%2fapp.py")).status_code == 404
        assert (await client.get("/metrics")).status_code == 404
        metrics = await client.get(f"http://127.0.0.1:{door.server.gateway.metrics.port}/metrics")
        assert "tidings_gateway_connections" in metrics.text


async def test_at_its_end_clients_are_sent_away_with_a_code_that_says_come_back(site: Site) -> None:
    async with site.gateway() as door, door.socket(scopes=ALL) as client:
        await client.ask(subscribe={"channel": "entities/vm"})
        ending = asyncio.create_task(door.server.stop())
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4501
        await ending


async def test_a_gateway_that_starts_first_waits_for_topics_and_rows(
    kafka: str, namespace: str, tmp_path: Path
) -> None:
    site = Site(kafka, namespace, tmp_path)
    server = Server(site.settings())
    serving = asyncio.create_task(server.serve())
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client:
        assert (await client.get("/healthz")).status_code == 200
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/readyz")).json()["waiting_for"] == ["topics", "the log, to be written to"]
        await site.make()
        door = Door(server)
        await door.until(lambda: server.gateway.ready, 60)
        waiting = (await client.get("/readyz")).json()
        assert waiting == {
            "ready": False,
            "waiting_for": ["rows of controls", "rows of notices", "rows of entities.vm", "rows of entities.task"],
        }
        async with site.working(), asyncio.timeout(30):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.02)
    await server.stop()
    await serving


async def test_who_sends_an_endless_head_or_dawdles_over_it_is_cut_off(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.gateway() as door:
        for path, line in (("/healthz", b"x: " + b"y" * 1000 + b"\r\n"), ("/healthz", b"")):
            monkeypatch.setattr(http_protocol, "HEAD_S", 0.2 if not line else 10.0)
            reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
            writer.write(f"GET {path} HTTP/1.1\r\nhost: a\r\n".encode() + line * 100)
            async with asyncio.timeout(5):
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read() == b""
            writer.close()
        monkeypatch.setattr(http_protocol, "HEAD_S", 10.0)
        async with door.http() as http:
            assert (await http.get("/healthz")).status_code == 200


async def test_who_pings_and_never_reads_is_cut_off(site: Site) -> None:
    async with site.gateway(limits=Limits(write_buffer=64 * 1024)) as door:
        reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
        writer.write(
            b"GET /v1/ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        ping = b"\x89\xfd" + bytes(4) + bytes(125)

        async def flood() -> None:
            while True:
                writer.write(ping * 500)
                await writer.drain()

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(flood(), 20)
        writer.close()
