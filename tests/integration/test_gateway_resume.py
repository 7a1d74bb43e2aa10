"""Snapshot and deltas equal a fresh snapshot, over random changes, filters, disconnects and two gateways."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from kafka import KafkaAdminClient

from api import live_log
from api.filters import parse
from api.settings import Limits
from tests.integration.gateway_world import Door, Site
from topics.catalogue import entity_topic

FILTERS: list[dict[str, Any] | None] = [
    None,
    {"key": "n", "op": "lt", "val": 5},
    {"op": "or", "nodes": [{"key": "n", "op": "eq", "val": 7}, {"key": "tag", "op": "prefix", "val": "a"}]},
]


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    async with made.working():
        yield made


class Client:
    """Holds what it was told, and nothing else."""

    def __init__(self, wanted: dict[str, Any] | None, *, enforced: bool) -> None:
        self.wanted, self.enforced = wanted, enforced
        self.rows: dict[str, Any] = {}
        self.position: str | None = None
        self.resumed = self.lost = 0

    async def visit(self, door: Door, changes: Any, frames: int, until: str | None = None) -> None:
        """Connect, take the answer, let things happen, read some frames, and vanish."""
        filters = {"vm": self.wanted} if self.enforced and self.wanted else None
        async with door.socket(filters=filters) as talk:
            request: dict[str, Any] = {"channel": "entities/vm"}
            if self.wanted and not self.enforced:
                request["filter"] = self.wanted
            answer = await talk.ask(subscribe=request | ({"since": self.position} if self.position else {}))
            if "error" in answer:
                assert answer["error"]["code"] == "position_lost"
                self.lost += 1
                answer = await talk.ask(subscribe=request)
            if answer.get("resumed"):
                self.resumed += 1
            else:
                self.rows = {r["id"]: r["entity"] for r in answer["snapshot"]}
            self.position = answer["position"]
            await changes()
            if until is not None:
                while self.position != until:
                    self.take(await talk.push())
                return
            for _ in range(frames):
                try:
                    self.take(await talk.push(0.05))
                except TimeoutError:
                    return

    def take(self, frame: dict[str, Any]) -> None:
        self.position = frame["position"]
        event = frame.get("event")
        if event is None:
            return
        if event["op"] in ("deleted", "left"):
            assert not self.enforced or event["id"] in self.rows, "an id that this token may not see"
            self.rows.pop(event["id"], None)
        else:
            self.rows[event["id"]] = frame["entity"]


async def change(http: httpx.AsyncClient, dice: random.Random, truth: dict[str, Any]) -> str:
    """Some changes of few entities; the position after the last."""
    lines = []
    for _ in range(dice.randrange(1, 8)):
        entity_id = f"e{dice.randrange(6)}"
        if dice.random() < 0.2:
            truth.pop(entity_id, None)
            lines.append({"id": entity_id, "op": "deleted"})
        else:
            truth[entity_id] = {"n": dice.randrange(10), "tag": dice.choice(["a1", "b"])}
            lines.append({"id": entity_id, "op": "updated", "body": truth[entity_id]})
    text = "\n".join(map(json.dumps, lines))
    sent = await http.post("/v1/entities/vm", content=text, headers={"content-type": "application/x-ndjson"})
    position: str = sent.json()["position"]
    return position


@pytest.mark.parametrize("seed", [1, 2])
async def test_what_a_client_holds_is_the_truth_once_it_has_caught_up(site: Site, seed: int) -> None:
    dice = random.Random(seed)
    truth: dict[str, Any] = {}
    limits = Limits(resume=60, snapshot_rows=2)
    clients = [Client(wanted, enforced=enforced) for wanted in FILTERS for enforced in (False, True)]
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(site.gateway(limits=limits))
        http = await stack.enter_async_context(one.http())
        for phase in range(3):
            written = [await change(http, dice, truth) for _ in range(4)]  # older than all that `two` will know
            async with site.gateway(limits=limits) as two:  # each time a fresh process without history
                for _ in range(12):
                    client, door = dice.choice(clients), dice.choice((one, two))

                    await client.visit(door, partial(happen, http, dice, truth, written), dice.choice((0, 2, 50)))
                written.append(await change(http, dice, truth))
                async with two.http() as other:
                    ends = [await end_of(reader, written) for reader in (http, other)]
                assert ends[0] == ends[1]
                for client in clients:
                    await client.visit(dice.choice((one, two)), _nothing, 0, ends[0])
                    matches = parse(client.wanted).matches if client.wanted else lambda _: True
                    assert client.rows == {i: e for i, e in truth.items() if matches(e)}, (phase, client.wanted)
    assert sum(c.resumed for c in clients) > 5


async def happen(http: httpx.AsyncClient, dice: random.Random, truth: dict[str, Any], written: list[str]) -> None:
    """Nothing, or some changes."""
    written += [await change(http, dice, truth) for _ in range(dice.randrange(3))]


async def end_of(http: httpx.AsyncClient, written: list[str]) -> str:
    """The position of a gateway once it has read all that was written."""
    found = ""
    for position in written:
        answer = await http.get("/v1/entities/vm", params={"at_least": position})
        assert answer.status_code == 200
        found = answer.json()["position"]
    return found


async def _nothing() -> None:
    await asyncio.sleep(0)


async def test_what_left_before_a_gateway_began_is_told_to_all_but_those_with_an_enforced_filter(site: Site) -> None:
    wanted = {"key": "n", "op": "lt", "val": 5}
    async with site.gateway() as one, one.http() as http:
        await http.put("/v1/entities/vm/a", json={"n": 1})
        await http.put("/v1/entities/vm/a", json={"n": 2})
        async with one.socket() as talk:
            start = await talk.ask(subscribe={"channel": "entities/vm", "filter": wanted})
        left = (await http.put("/v1/entities/vm/a", json={"n": 9})).json()["position"]
        await rows_hold(site, one, left)
    async with site.gateway() as two:
        async with two.socket() as talk:
            resumed = {"channel": "entities/vm", "filter": wanted, "since": start["position"]}
            assert (await talk.ask(subscribe=resumed))["resumed"] is True
            assert (await talk.push())["event"] == {"op": "left", "type": "vm", "id": "a"}
        async with two.socket(filters={"vm": wanted}) as talk:
            refused = await talk.ask(subscribe={"channel": "entities/vm", "since": start["position"]})
            assert refused["error"]["code"] == "position_lost"


async def rows_hold(site: Site, door: Door, position: str) -> None:
    """Wait until the rows have come to a position of `entities.vm`."""
    topic, wanted = door.server.gateway.live.understood(position, (entity_topic("vm"),))
    assert await door.server.gateway.database.reaches(topic, wanted.next, 20, answers=False)


async def test_on_a_log_that_was_made_anew_no_position_holds(
    kafka: str, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_log, "EPOCH_CHECK_S", 0.5)
    site = Site(kafka, namespace, tmp_path)
    await site.make()
    async with site.gateway() as door, door.http() as http:
        async with door.socket() as talk:
            await http.put("/v1/entities/vm/a", json={"n": 1})
            start = await talk.ask(subscribe={"channel": "entities/vm"})
            await asyncio.to_thread(delete_topics, kafka, namespace)
            await site.make()
            await talk.ws.wait_closed()
            assert talk.ws.close_code == 4502
        gateway = door.server.gateway
        await door.until(lambda: gateway.ready)
        async with door.socket() as talk:
            refused = await talk.ask(subscribe={"channel": "entities/vm", "since": start["position"]})
            assert refused["error"]["code"] == "position_lost"
            assert (await talk.ask(subscribe={"channel": "entities/vm"}))["snapshot"] == []


def delete_topics(kafka: str, prefix: str) -> None:
    """As an operator would, by mistake or on purpose."""
    with closing(KafkaAdminClient(bootstrap_servers=kafka)) as admin:
        admin.delete_topics([t for t in admin.list_topics() if t.startswith(prefix)])
        while any(t.startswith(prefix) for t in admin.list_topics()):
            pass
