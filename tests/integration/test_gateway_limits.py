"""Who is kept out, and how: too many connections, commands that come too fast, filters that cost too much."""

import asyncio
import json
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import websockets
from websockets.asyncio.client import ClientConnection

from api.access.admission import network
from api.settings import Limits
from tests.integration.gateway_world import Door, Site, Talk

SMALL = Limits(
    connections=6,
    connections_per_address=3,
    connections_per_user=2,
    commands_per_second=0.001,
    command_burst=5,
    subscriptions=1,
    filter_depth=2,
    filter_nodes=3,
)


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


async def connected(door: Door, address: str, user: str) -> ClientConnection:
    """From an address, as a proxy says it, with the token in the handshake."""
    headers = {"x-forwarded-for": address, "authorization": f"Bearer {door.token(user)}"}
    return await websockets.connect(door.base.replace("http", "ws") + "/v1/ws", additional_headers=headers)


async def refused(door: Door, address: str, user: str) -> dict[str, Any]:
    """The problem with which a handshake is refused."""
    with pytest.raises(websockets.InvalidStatus) as told:
        await connected(door, address, user)
    assert told.value.response.status_code == 429
    assert told.value.response.headers["retry-after"]
    problem: dict[str, Any] = json.loads(told.value.response.body)
    assert problem["code"] == "too_many_connections"
    return {problem["limit"]: problem["value"]}


async def ended(ws: ClientConnection) -> int | None:
    await asyncio.wait_for(ws.wait_closed(), 20)
    return ws.close_code


async def test_connections_are_counted_by_address_by_user_and_in_all(site: Site) -> None:
    here = ("127.0.0.1", "10.0.0.0/8")
    async with site.gateway(limits=SMALL, trusted_proxies=here) as door, AsyncExitStack() as stack:
        for address, user in (("203.0.113.7", "a"), ("spoofed, 203.0.113.7, 10.1.2.3", "a"), ("203.0.113.7", "b")):
            await stack.enter_async_context(await connected(door, address, user))
        assert await refused(door, "203.0.113.7", "c") == {"connections_per_address": 3}
        assert await ended(await connected(door, "203.0.113.8", "a")) == 4429
        async with await connected(door, "2001:db8::1", "d"), await connected(door, "2001:db8::ffff:1", "d"):
            async with await connected(door, "2001:db8::2", "e"):
                assert await refused(door, "203.0.113.9", "f") == {"connections": 6}
            await door.until(lambda: len(door.server.gateway.connections) == 5)  # who left makes room
            async with await connected(door, "2001:db8::2", "e"):
                await door.until(lambda: len(door.server.gateway.connections) == 6)


async def test_an_ipv6_network_is_one_address() -> None:
    assert len({network(f"2001:db8::{i}") for i in range(9)}) == 1
    assert network("2001:db8:0:1::1") != network("2001:db8::1")
    assert network("::ffff:203.0.113.7") == network("203.0.113.7") == "203.0.113.7"
    assert network("unix:") == "unix:"


async def test_the_address_is_the_peers_unless_a_trusted_proxy_says_otherwise(site: Site) -> None:
    async with site.gateway(limits=SMALL) as door, AsyncExitStack() as stack:
        for number in range(3):
            await stack.enter_async_context(await connected(door, f"203.0.113.{number}", f"u{number}"))
        assert await refused(door, "203.0.113.9", "u9") == {"connections_per_address": 3}


async def test_who_talks_too_fast_is_told_and_then_sent_away(site: Site) -> None:
    async with site.gateway(limits=SMALL) as door, door.socket() as talk:  # `auth` was the first of five
        deep: dict[str, Any] = {"key": "a", "op": "exists"}
        for _ in range(2):
            deep = {"op": "not", "nodes": [deep]}
        wide = {"op": "or", "nodes": [{"key": "a", "op": "eq", "val": n} for n in range(3)]}
        for wanted, limit, value in ((deep, "filter_depth", 2), (wide, "filter_nodes", 3)):
            fault = (await talk.ask(subscribe={"channel": "entities/vm", "filter": wanted}))["error"]
            assert (fault["code"], fault["limit"], fault["value"]) == ("bad_filter", limit, value)
        assert "position" in await talk.ask(subscribe={"channel": "entities/vm"})
        fault = (await talk.ask(subscribe={"channel": "entities/task"}))["error"]
        assert (fault["code"], fault["limit"], fault["value"]) == ("limit", "subscriptions", 1)
        for _ in range(SMALL.command_burst):
            fault = (await talk.ask(ping={}))["error"]
            assert (fault["code"], fault["limit"], fault["retry"]) == ("rate_limited", "commands_per_second", True)
        async with door.http() as http:  # what is pushed is no command
            await http.put("/v1/entities/vm/a", json={})
        assert (await talk.push())["event"]["id"] == "a"
        await talk.ws.send('{"id":99,"ping":{}}')
        assert await ended(talk.ws) == 4429
        async with door.socket() as again:
            assert await again.ask(ping={}) == {}


async def test_a_connection_too_many_is_told_so_in_its_answer(site: Site) -> None:
    async with site.gateway(limits=SMALL) as door, door.socket() as one, door.socket():
        third = Talk(await websockets.connect(door.base.replace("http", "ws") + "/v1/ws"))
        fault = (await third.ask(auth={"token": door.token()}))["error"]
        assert fault["code"] == "too_many_connections"
        assert (fault["limit"], fault["value"]) == ("connections_per_user", 2)
        await one.ws.close()
        await door.until(lambda: len(door.server.gateway.connections) == 2)
        assert await third.ask(auth={"token": door.token()}) == {"user": "u1"}
        await third.ws.close()
