"""Who may see what, by every way in: scopes and row filters, tokens that end, and tokens that are revoked."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from sqlalchemy import select

from api.access.tokens import sign
from projections.sql.schema import revocations
from tests.integration.gateway_world import SECRET, Site, Talk
from topics.catalogue import CONTROLS

VM = {"mine": {"account": 7, "cpu": 10}, "theirs": {"account": 8, "cpu": 90}}
TASK = {"job": {"account": 8}}
EVERYTHING = ("entities:read:*",)


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


@dataclass(frozen=True)
class Case:
    """A token, and what it may see of each type: null where it may not even ask."""

    scopes: tuple[str, ...]
    vm: set[str] | None
    task: set[str] | None
    filters: dict[str, Any] | None = None
    own: dict[str, Any] | None = None  # asked for of `vm`, beside what the token enforces

    def asked(self, kind: str) -> dict[str, Any]:
        return {"filter": self.own} if self.own and kind == "vm" else {}


ACCOUNT_7 = {"vm": {"key": "account", "op": "eq", "val": 7}}
CASES = [
    Case(EVERYTHING, {"mine", "theirs"}, {"job"}),
    Case(("entities:read:vm",), {"mine", "theirs"}, None),
    Case(("entities:read:task", "entities:write:*"), None, {"job"}),
    Case(("entities:write:*", "notices:write", "configs", "recipients", "audit", "tokens"), None, None),
    Case((), None, None),
    Case(EVERYTHING, {"mine"}, {"job"}, ACCOUNT_7),
    Case(("entities:read:vm",), {"mine"}, None, ACCOUNT_7),
    Case(("entities:read:task",), None, {"job"}, ACCOUNT_7),
    Case(EVERYTHING, set(), {"job"}, {"vm": {"key": "account", "op": "eq", "val": 9}}),
    Case(EVERYTHING, {"mine"}, {"job"}, ACCOUNT_7, {"key": "account", "op": "in", "val": [7, 8]}),
    Case(EVERYTHING, set(), {"job"}, ACCOUNT_7, {"key": "account", "op": "eq", "val": 8}),
    Case(EVERYTHING, {"mine"}, set(), {**ACCOUNT_7, "task": {"key": "account", "op": "eq", "val": 7}}),
]


async def written(http: httpx.AsyncClient, cpu: int) -> dict[str, str]:
    """Every entity once more; the position of each type afterwards."""
    ends = {}
    for kind, rows in (("vm", VM), ("task", TASK)):
        lines = "\n".join(json.dumps({"id": i, "body": body | {"cpu": cpu}}) for i, body in rows.items())
        sent = await http.post(f"/v1/entities/{kind}", content=lines, headers={"content-type": "application/jsonl"})
        read = await http.get(f"/v1/entities/{kind}", params={"at_least": sent.json()["position"]})
        ends[kind] = read.json()["position"]
    return ends


async def seen_by_http(
    http: httpx.AsyncClient, token: str, case: Case, kind: str, rows: dict[str, Any]
) -> tuple[Any, Any]:
    """What a list shows and what single reads show; null for a refusal."""
    asked = {name: json.dumps(wanted) for name, wanted in case.asked(kind).items()}
    headers = {"authorization": f"Bearer {token}"}
    listed = await http.get(f"/v1/entities/{kind}", params=asked, headers=headers)
    single = {i: (await http.get(f"/v1/entities/{kind}/{i}", headers=headers)).status_code for i in rows}
    assert listed.status_code == (403 if set(single.values()) == {403} else 200)
    many = None if listed.status_code == 403 else {i["id"] for i in listed.json()["items"]}
    return many, None if 403 in single.values() else {i for i, status in single.items() if status == 200}


async def seen_by_stream(http: httpx.AsyncClient, token: str, asked: dict[str, Any], end: str | None) -> Any:
    """The ids of a snapshot, or with `since` of what came until `end`; null for a refusal."""
    params = asked | ({"filter": json.dumps(asked["filter"])} if "filter" in asked else {})
    headers = {"authorization": f"Bearer {token}"}
    async with http.stream("GET", "/v1/sse", params=params, headers=headers) as response:
        if response.status_code == 403:
            return None
        frames = (json.loads(line[5:]) async for line in response.aiter_lines() if line.startswith("data:"))
        first = (await anext(frames))["ok"]
        told, position = {row["id"] for row in first.get("snapshot", ())}, first["position"]
        while end is not None and position != end:
            frame = await anext(frames)
            position = frame["position"]
            told |= {frame["event"]["id"]} if "event" in frame else set()
        return told


def refused_or(answer: dict[str, Any]) -> dict[str, Any] | None:
    """An answer, or null if it was refused for the scope."""
    if "error" in answer:
        assert answer["error"]["code"] == "forbidden"
        assert answer["error"]["scope"].startswith("entities:read:")
        return None
    return answer


async def test_scopes_and_row_filters_hold_by_every_way_in(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, AsyncExitStack() as stack:
        start = await written(http, 1)
        watching: list[tuple[Case, str, Talk, dict[str, Any] | None]] = []
        for case in CASES:
            for kind in ("vm", "task"):
                talk = await stack.enter_async_context(door.socket(scopes=case.scopes, filters=case.filters))
                asked = {"channel": f"entities/{kind}"} | case.asked(kind)
                snapshot = refused_or(await talk.ask(subscribe=asked))
                allowed = getattr(case, kind)
                assert (None if snapshot is None else {r["id"] for r in snapshot["snapshot"]}) == allowed, case
                watching.append((case, kind, talk, snapshot))
        ends = await written(http, 2)
        for case, kind, talk, snapshot in watching:
            allowed = getattr(case, kind)
            assert await talk.ask(ping={}) == {}  # what it was to be told was told before this
            told = {p["event"]["id"] for p in talk.pushes}
            assert (told if snapshot is not None else None) == allowed, ("push", case, kind)
            async with door.socket(scopes=case.scopes, filters=case.filters) as back:
                asked = {"channel": f"entities/{kind}"} | case.asked(kind)
                resumed = refused_or(await back.ask(subscribe=asked | {"since": start[kind]}))
                assert (resumed is None) == (allowed is None), ("resume", case, kind)
                again: Any = set()
                position = resumed["position"] if resumed else ends[kind]
                while position != ends[kind]:
                    frame = await back.push()
                    position = frame["position"]
                    again |= {frame["event"]["id"]} if "event" in frame else set()
                assert (again if resumed is not None else None) == allowed, ("resume", case, kind)
            rows: dict[str, Any] = {"vm": VM, "task": TASK}[kind]
            token = door.token("reader", case.scopes, filters=case.filters)
            assert await seen_by_stream(http, token, asked, None) == allowed, ("stream", case, kind)
            again = await seen_by_stream(http, token, asked | {"since": start[kind]}, ends[kind])
            assert again == allowed, ("stream resume", case, kind)
            many, single = await seen_by_http(http, token, case, kind, rows)
            assert many == allowed, ("list", case, kind)
            if not (case.own and kind == "vm"):  # a filter that is asked for belongs to lists
                assert single == allowed, ("one", case, kind)


async def closed(talk: Talk) -> tuple[int | None, str | None]:
    """How the connection ended."""
    await asyncio.wait_for(talk.ws.wait_closed(), 20)
    return talk.ws.close_code, talk.ws.close_reason


async def test_a_connection_ends_with_its_token_unless_it_is_given_another(site: Site) -> None:
    async with site.gateway() as door, AsyncExitStack() as stack:
        left, stays = [await stack.enter_async_context(door.socket(scopes=EVERYTHING, ttl_s=2)) for _ in range(2)]
        for talk in (left, stays):
            await talk.ask(subscribe={"channel": "entities/vm"})
        for other, code in (
            (door.token("somebody-else", EVERYTHING), "forbidden"),
            (door.token(scopes=(*EVERYTHING, "audit")), "forbidden"),
            (door.token(scopes=EVERYTHING, filters=ACCOUNT_7), "forbidden"),
            ("nonsense", "unauthorized"),
        ):
            assert (await stays.ask(auth={"token": other}))["error"]["code"] == code
        assert await stays.ask(auth={"token": door.token(scopes=EVERYTHING)}) == {"user": "u1"}
        assert await closed(left) == (4401, "the token has expired")
        async with door.http() as http:
            await written(http, 1)
        assert (await stays.push())["event"]["id"] in VM


@pytest.fixture
async def folded(site: Site) -> AsyncIterator[Site]:
    async with site.working():
        yield site


async def test_a_revoked_token_holds_nowhere_from_then_on(folded: Site) -> None:
    one_id, other_id = "ann's phone", "ann's laptop"
    phone = sign(SECRET, "ann", ("notices:write", *EVERYTHING), ttl_s=600, jti=one_id)
    laptop = sign(SECRET, "ann", EVERYTHING, ttl_s=600, jti=other_id)
    notice = {"to": ["bob"], "title": "hello"}
    async with folded.gateway() as one, folded.gateway() as two, AsyncExitStack() as stack:
        by_phone = {"authorization": f"Bearer {phone}"}
        ops = await stack.enter_async_context(two.http("ops", ("tokens",)))
        anyone = await stack.enter_async_context(one.http("bob", EVERYTHING))
        for _ in range(2):  # the second time it is known, and goes the short way
            assert (await anyone.post("/v1/notices", json=notice, headers=by_phone)).status_code == 202
        talks = {}
        for name, door, token in (("phone", one, phone), ("laptop", one, laptop), ("bob", one, one.token("bob"))):
            connecting = websockets.connect(door.base.replace("http", "ws") + "/v1/ws")
            talks[name] = Talk(await stack.enter_async_context(connecting))
            await talks[name].ask(auth={"token": token})
            await talks[name].ask(subscribe={"channel": "entities/vm"})
        for wrong in ({}, {"id": "x", "user": "y"}, {"user": "y", "until": "2099-01-01T00:00:00Z"}, {"id": ""}):
            assert (await ops.post("/v1/tokens/revoke", json=wrong)).status_code == 422
        assert (await anyone.post("/v1/tokens/revoke", json={"id": one_id})).json()["scope"] == "tokens"

        stream = await stack.enter_async_context(
            anyone.stream("GET", "/v1/sse", params={"channel": "entities/vm"}, headers=by_phone)
        )
        streamed = stream.aiter_lines()
        revoked = await ops.post("/v1/tokens/revoke", json={"id": one_id, "until": "2099-01-01T00:00:00Z"})
        assert revoked.status_code == 200
        assert await closed(talks["phone"]) == (4401, "the token was revoked")
        last = [json.loads(line[5:]) async for line in streamed if line.startswith("data:")][-1]
        told = {"code": "unauthorized", "message": "The token was revoked.", "retry": False}
        assert {name: last["error"][name] for name in told} == told
        for door in (one, two):
            async with door.http() as http:
                await door.until(lambda d=door: d.server.gateway.tokens.known(phone) is None)  # type: ignore[misc]
                refused = await http.post("/v1/notices", json=notice, headers=by_phone)
                assert (refused.status_code, refused.json()["detail"]) == (401, "The token was revoked.")
                assert (await http.get("/v1/me", headers=by_phone)).status_code == 401
            with pytest.raises(websockets.ConnectionClosed) as gone:
                async with websockets.connect(
                    door.base.replace("http", "ws") + "/v1/ws", additional_headers=by_phone
                ) as ws:
                    await ws.recv()
            assert gone.value.rcvd is not None
            assert gone.value.rcvd.code == 4401
        assert await talks["laptop"].ask(ping={}) == {}

        assert (await ops.post("/v1/tokens/revoke", json={"user": "ann"})).status_code == 200
        assert await closed(talks["laptop"]) == (4401, "the token was revoked")
        async with one.http("ann", now=time.time() + 1) as again:  # what she is given from now on holds
            assert (await again.get("/v1/me")).status_code == 200
        assert await talks["bob"].ask(ping={}) == {}
        position = (await ops.post("/v1/tokens/revoke", json={"id": "nobody's"})).json()["position"]
        _, at = two.server.gateway.live.understood(position, (CONTROLS,))
        assert await two.server.gateway.database.reaches(CONTROLS, at.next, 20, answers=False)
        rows = await two.server.gateway.database.read(lambda tx: tx.execute(select(revocations)).all())
        assert {(r.token_id, r.user_id) for r in rows} == {(one_id, None), ("", "ann"), ("nobody's", None)}
    async with folded.gateway() as later, later.http() as http:  # from the rows
        for token in (phone, laptop):
            refused = await http.get("/v1/me", headers={"authorization": f"Bearer {token}"})
            assert refused.json()["detail"] == "The token was revoked."
        async with later.http("ann", now=time.time() + 1) as again:
            assert (await again.get("/v1/me")).status_code == 200
