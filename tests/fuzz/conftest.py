"""One gateway that everything is thrown at, as a process of its own, and somebody else who is served all the while."""

from __future__ import annotations

import asyncio
import itertools
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy
from websockets.sync.client import ClientConnection, connect

from tests.integration.gateway_process import MIB, GatewayProcess, token
from tests.integration.gateway_world import Site
from topics.catalogue import DEAD_LETTERS
from topics.fetch import Broken, reading

MAY_GROW = 48 * MIB


class Attacked:
    """The gateway under attack, and a bystander on its live channel."""

    def __init__(self, gateway: GatewayProcess, bystander: ClientConnection, http: httpx.Client) -> None:
        self.gateway, self.http, self._bystander = gateway, http, bystander
        self._ids = itertools.count(1)

    def unharmed(self) -> None:
        """Whoever was there before is answered."""
        sent = next(self._ids)
        self._bystander.send(json.dumps({"id": sent, "ping": {}}))
        while (frame := self._next()).get("id") != sent:
            assert "event" in frame, frame
        assert frame == {"id": sent, "ok": {}}

    def told(self) -> list[str]:
        """Ids of the entities that the bystander is told of, up to one that is written now."""
        last = f"last-{next(self._ids)}"
        assert self.http.put(f"/v1/entities/vm/{last}", json={}).status_code == 202
        found = [""]
        while found[-1] != last:
            found.append(self._next()["event"]["id"])
        return found[1:]

    def _next(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._bystander.recv(20))
        return found


@pytest.fixture(scope="module")
def attacked(kafka: str, postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    """At the end it lives, has said nothing of a fault, and has not grown."""
    name = f"t{uuid.uuid4().hex[:8]}"
    admin = sqlalchemy.create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    folder: Path = tmp_path_factory.mktemp("attacked")
    site = Site(kafka, f"{name}-", folder, f"{postgres_server}/{name}")
    asyncio.run(site.make())
    gateway = GatewayProcess(
        site, folder / "gateway.log", wait=0.05, commands_per_second=1e6, command_burst=1_000_000, connections=20_000
    )
    gateway.start()
    headers = {"authorization": f"Bearer {token('bystander')}"}
    try:
        with (
            httpx.Client(base_url=gateway.url, headers=headers, timeout=20) as http,
            connect(gateway.live, additional_headers=headers, max_size=None) as bystander,
        ):
            while "error" in json.loads(_asked(bystander)):
                pass
            made = Attacked(gateway, bystander, http)
            before = gateway.memory
            yield made
            made.unharmed()
            grown = gateway.memory - before
            assert grown < MAY_GROW, f"{grown / MIB:.0f} MiB"
        assert gateway.alive
        assert gateway.faults == []
        assert asyncio.run(broken(site)) == [], "the gateway wrote what nobody can read"
    finally:
        gateway.stop()


async def broken(site: Site) -> list[Broken]:
    """Records on the log that are no events."""
    async with reading(site.cluster, site.catalogue) as reader:
        ends = await reader.ends(reader.spots([t for t in site.catalogue.topics() if t != DEAD_LETTERS]))
        return [r for spot, end in ends.items() async for r in reader.range(spot, 0, end) if isinstance(r, Broken)]


def _asked(bystander: ClientConnection) -> str | bytes:
    bystander.send('{"id":0,"subscribe":{"channel":"entities/vm"}}')
    return bystander.recv(20)
