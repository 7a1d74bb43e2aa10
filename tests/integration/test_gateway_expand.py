"""`expand` through the real protocol: what a backend answers comes late but in order, to those who may share it, and
holds up nobody else.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets

from api.settings import Limits
from tests.integration.gateway_world import Door, Site, Talk
from tests.integration.odd_backend import OddBackend, answer

PANEL = {"backend": "panel", "path": "/{type}/{id}"}
LOW = {"key": "n", "op": "lt", "val": 5}
CHANGES = [("a", 1), ("b", 1), ("a", 9), ("c", 1)]


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


@pytest.fixture
async def backend() -> AsyncIterator[OddBackend]:
    async with OddBackend().serving() as serving:
        yield serving


async def put(http: httpx.AsyncClient, path: str, n: int) -> str:
    sent = await http.put(f"/v1/entities/{path}", json={"n": n})
    assert sent.status_code == 202
    read = await http.get(f"/v1/entities/{path}", params={"at_least": sent.json()["position"]})
    assert read.status_code == 200
    return str(sent.json()["position"])


def seen(frame: dict[str, Any]) -> tuple[str, str, Any]:
    shown = frame.get("entity", frame.get("expand_error", {}).get("code"))
    return frame["event"]["op"], frame["event"]["id"], shown


async def test_snapshot_pushes_and_resume_carry_what_the_backend_says(site: Site, backend: OddBackend) -> None:
    backend.behaviours["/vm/b"] = [answer(b"", status="404 No")]
    nothing_kept = Limits(history_bytes=1)  # a resume is read from the log
    settings = {"panel": backend.settings()}
    async with site.gateway(backends=settings, limits=nothing_kept) as door, door.http() as http:
        await put(http, "vm/a", 1)
        await put(http, "vm/b", 2)
        await put(http, "vm/c", 9)
        async with door.socket() as talk:
            for wrong in ({"backend": "other", "path": "/{type}/{id}"}, {"backend": "panel", "path": "/admin/{id}"}):
                refused = await talk.ask(subscribe={"channel": "entities/vm", "expand": wrong})
                assert refused["error"]["code"] == "bad_expand"
            assert (await talk.ask(subscribe={"channel": "inbox", "expand": PANEL}))["error"]["code"] == "bad_expand"
            assert not backend.asked
            start = await talk.ask(subscribe={"channel": "entities/vm", "expand": PANEL, "filter": LOW})
            rows = {row["id"]: row.get("entity", row.get("expand_error", {}).get("code")) for row in start["snapshot"]}
            assert rows == {"a": {"path": "/vm/a"}, "b": "not_found"}, "the filter looks at the log's body"
            await put(http, "vm/d", 3)
            await put(http, "vm/a", 9)
            await http.delete("/v1/entities/vm/b")
            pushes = [await talk.push() for _ in range(3)]
            assert [seen(p) for p in pushes[:1]] == [("updated", "d", {"path": "/vm/d"})]
            assert [seen(p) for p in pushes[1:]] == [("left", "a", None), ("deleted", "b", None)]
        for n in range(4):
            await put(http, "vm/d", n)
        await put(http, "vm/e", 1)
        before = backend.count("/vm/d")
        async with door.socket() as talk:
            resumed = await talk.ask(
                subscribe={
                    "channel": "entities/vm",
                    "expand": PANEL,
                    "filter": LOW,
                    "since": pushes[0]["position"],
                }
            )
            assert resumed["resumed"] is True
            again = [seen(await talk.push()) for _ in range(7)]  # the order holds within a partition
            expected = [("left", "a", None), ("deleted", "b", None), ("updated", "e", {"path": "/vm/e"})]
            expected += [("updated", "d", {"path": "/vm/d"})] * 4
            assert sorted(again, key=str) == sorted(expected, key=str)
        assert backend.count("/vm/d") == before + 1, "the newest state is asked for, once"
        backend.behaviours["/task/t"] = [answer(b'{\n"lines":\r\n2}')]
        watched = {"channel": "entities/task", "expand": json.dumps(PANEL)}
        async with asyncio.timeout(20), http.stream("GET", "/v1/sse", params=watched) as stream:
            events = (line.removeprefix("data: ") async for line in stream.aiter_lines() if line.startswith("data: "))
            assert json.loads(await anext(events))["ok"]["snapshot"] == []
            await put(http, "task/t", 1)
            assert json.loads(await anext(events))["entity"] == {"lines": 2}


async def test_one_that_hangs_holds_up_its_own_order_and_nothing_else(site: Site, backend: OddBackend) -> None:
    backend.hold = asyncio.Event()
    async with (
        site.gateway(backends={"panel": backend.settings(timeout=60)}) as door,
        door.http() as http,
        door.socket() as one,
        door.socket("u2") as two,
        door.socket("u3", filters={"vm": LOW}) as confined,
        door.socket("u4") as plain,
    ):
        for talk in (one, two, confined):
            await talk.ask(subscribe={"channel": "entities/vm", "expand": PANEL})
        await one.ask(subscribe={"channel": "entities/task"})
        await plain.ask(subscribe={"channel": "entities/vm"})
        await put(http, "vm/a", 1)
        await door.until(lambda: backend.count("/vm/a"))
        free, backend.hold = backend.hold, None
        await put(http, "vm/b", 1)
        await put(http, "vm/a", 9)
        await put(http, "vm/c", 1)
        await door.until(lambda: backend.count("/vm/a") == 2 and backend.count("/vm/c") == 1)
        await put(http, "task/x", 1)
        other = await one.push()
        assert (other["channel"], other["entity"]) == ("entities/task", {"n": 1})
        assert [seen(await plain.push())[1:] for _ in range(4)] == [(i, {"n": n}) for i, n in CHANGES]
        for talk in (two, confined):
            with pytest.raises(TimeoutError):
                await talk.push(0)
        free.set()
        for talk in (one, two):
            assert [seen(await talk.push())[1:] for _ in range(4)] == [(i, {"path": f"/vm/{i}"}) for i, _ in CHANGES]
        assert [seen(await confined.push()) for _ in range(4)] == [
            ("updated", "a", "superseded"),  # the backend's answer is of a state that this token may not see
            ("updated", "b", {"path": "/vm/b"}),
            ("left", "a", None),
            ("updated", "c", {"path": "/vm/c"}),
        ]
        assert [backend.count(f"/vm/{i}") for i in "abc"] == [2, 1, 1], "each version is asked for once for all"


async def test_a_position_does_not_overtake_what_waits(site: Site, backend: OddBackend) -> None:
    backend.hold = free = asyncio.Event()
    limits, settings = Limits(resume=30), {"panel": backend.settings(timeout=60)}
    async with site.gateway(backends=settings, limits=limits) as door, door.http() as http, door.socket() as talk:
        await talk.ask(subscribe={"channel": "entities/vm", "expand": PANEL, "filter": LOW})
        await put(http, "vm/a", 1)
        for n in range(11):
            await put(http, f"vm/{n}", 9)
        with pytest.raises(TimeoutError):
            await talk.push(0)
        free.set()
        assert seen(await talk.push()) == ("updated", "a", {"path": "/vm/a"})
        assert "event" not in await talk.push()


async def test_an_answer_for_one_subscriber_is_never_anothers(site: Site, backend: OddBackend) -> None:
    backend.says = lambda _, authorization: {"for": authorization}
    own = {"backend": "own", "path": "/{type}/{id}"}
    async with (
        site.gateway(backends={"own": backend.settings(auth="subscriber")}) as door,
        door.http() as http,
        door.socket("u1") as one,
        door.socket("u2") as two,
    ):
        token, newer = door.token("u1"), door.token("u1", ttl_s=900)
        await one.ask(auth={"token": token})
        for talk in (one, two):
            await talk.ask(subscribe={"channel": "entities/vm", "expand": own})
        await put(http, "vm/a", 1)
        told = [(await talk.push())["entity"]["for"] for talk in (one, two)]
        assert told[0] == f"Bearer {token}"
        assert told[1] not in (told[0], None)
        await one.ask(auth={"token": newer})
        await put(http, "vm/a", 2)
        assert (await one.push())["entity"]["for"] == f"Bearer {newer}"
        assert (await two.push())["entity"]["for"] == told[1]


async def test_those_whose_backend_is_slower_than_the_log_are_sent_away_and_miss_nothing(
    site: Site, backend: OddBackend
) -> None:
    backend.hold = free = asyncio.Event()
    settings = {"panel": backend.settings(timeout=60, concurrency=2)}
    async with (
        site.gateway(backends=settings, limits=Limits(expand_waiting=5)) as door,
        door.http() as http,
        door.socket() as talk,
    ):
        start = await talk.ask(subscribe={"channel": "entities/vm", "expand": PANEL})
        for n in range(12):
            await put(http, f"vm/{n}", n)
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await talk.push()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4503
        assert backend.most_at_once <= 2
        free.set()
        assert await _resumed(door, start["position"], 12) == {str(n): {"path": f"/vm/{n}"} for n in range(12)}


async def _resumed(door: Door, since: str, events: int) -> dict[str, Any]:
    async with door.socket() as talk:
        await _ok(talk, {"channel": "entities/vm", "expand": PANEL, "since": since})
        pushes = [await talk.push() for _ in range(events)]
        assert len({p["position"] for p in pushes}) == events
        return {p["event"]["id"]: p["entity"] for p in pushes}


async def _ok(talk: Talk, request: dict[str, Any]) -> None:
    assert "position" in await talk.ask(subscribe=request)
