"""What a client holds equals the log at its position, after every frame: over random changes, filters, disconnects, two
gateways, WebSockets with several channels and event streams.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from kafka import KafkaAdminClient

from api.live import log as live_log
from api.live.filters import parse
from api.live.position import decode as decode_position
from api.settings import Limits
from tests.integration.gateway_world import Door, Site, Talk
from topics.catalogue import entity_topic
from topics.codec import decode
from topics.events import Record
from topics.fetch import reading

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


class Talking:
    """A WebSocket that watches another channel, too."""

    def __init__(self, talk: Talk, *, fickle: bool) -> None:
        self._talk, self._fickle = talk, fickle

    async def subscribe(self, request: dict[str, Any]) -> dict[str, Any]:
        other = {"channel": "entities/task"}
        assert (await self._talk.ask(subscribe=other)).get("snapshot", []) == []  # or it is subscribed already
        if self._fickle:
            assert await self._talk.ask(unsubscribe=other) == other
            await self._talk.ask(subscribe=request)
            await self._talk.ask(unsubscribe={"channel": "entities/vm"})
            self._talk.pushes.clear()
        return await self._talk.ask(subscribe=request)

    async def frame(self, seconds: float = 20) -> dict[str, Any]:
        while True:
            found = await self._talk.push(seconds)
            if found["channel"] == "entities/vm":
                return found
            assert not self._fickle, "unsubscribed"


class Streaming:
    """An event stream."""

    def __init__(self, stack: AsyncExitStack, door: Door, filters: dict[str, Any] | None) -> None:
        self._stack, self._door, self._filters = stack, door, filters

    async def subscribe(self, request: dict[str, Any]) -> dict[str, Any]:
        self._stream = await self._stack.enter_async_context(self._door.stream(**request, filters=self._filters))
        if self._stream.refused is not None:
            return {"error": self._stream.refused}
        rows: list[Any] = []
        while True:
            ok: dict[str, Any] = (await self._stream.next()).frame["ok"]
            rows += ok.get("snapshot", [])
            if not ok.get("more"):
                assert self._stream.id == ok["position"]
                return ok | {"snapshot": rows}

    async def frame(self, seconds: float = 20) -> dict[str, Any]:
        event = await self._stream.next(seconds)
        assert event.id == event.frame["position"]
        return event.frame


@dataclass
class Step:
    """What a client held at a position; `event` took it there from the step before, unless it is a fresh snapshot."""

    position: str
    rows: dict[str, Any]
    event: dict[str, Any] | None = None
    fresh: bool = False


class Client:
    """Holds what it was told, and nothing else."""

    def __init__(self, wanted: dict[str, Any] | None, *, enforced: bool) -> None:
        self.wanted, self.enforced = wanted, enforced
        self.matches = parse(wanted).matches if wanted else lambda _: True
        self.rows: dict[str, Any] = {}
        self.position: str | None = None
        self.steps: list[Step] = []
        self.resumed = self.lost = 0

    async def visit(self, door: Door, dice: random.Random, changes: Any, frames: int, until: str | None = None) -> None:
        """Connect, take the answer, let things happen, read some frames, and vanish."""
        filters = {"vm": self.wanted} if self.enforced and self.wanted else None
        async with AsyncExitStack() as stack:
            line: Talking | Streaming = Streaming(stack, door, filters)
            if dice.random() < 0.5:
                line = Talking(
                    await stack.enter_async_context(door.socket(filters=filters)), fickle=dice.random() < 0.3
                )
            request: dict[str, Any] = {"channel": "entities/vm"}
            if self.wanted and not self.enforced:
                request["filter"] = self.wanted
            answer = await line.subscribe(request | ({"since": self.position} if self.position else {}))
            if "error" in answer:
                assert answer["error"]["code"] == "position_lost"
                self.lost += 1
                answer = await line.subscribe(request)
            if answer.get("resumed"):
                self.resumed += 1
                assert answer["position"] == self.position
            else:
                self.rows = {r["id"]: r["entity"] for r in answer["snapshot"]}
                self.steps.append(Step(answer["position"], dict(self.rows), fresh=True))
            self.position = answer["position"]
            await changes()
            if until is not None:
                while self.position != until:
                    self.take(await line.frame())
                return
            for _ in range(frames):
                try:
                    self.take(await line.frame(0.05))
                except TimeoutError:
                    return

    def take(self, frame: dict[str, Any]) -> None:
        self.position = frame["position"]
        event = frame.get("event")
        if event is not None and event["op"] in ("deleted", "left"):
            assert not self.enforced or event["id"] in self.rows, "an id that this token may not see"
            self.rows.pop(event["id"], None)
        elif event is not None:
            self.rows[event["id"]] = frame["entity"]
        self.steps.append(Step(frame["position"], dict(self.rows), event))


class Written:
    """The oracle: the records of the topic, read apart, by partition."""

    def __init__(self, records: list[list[tuple[str, Any]]]) -> None:
        self._records = records

    @classmethod
    async def read(cls, site: Site) -> Written:
        name = site.catalogue.physical(entity_topic("vm"))
        consumer = AIOKafkaConsumer(**site.cluster.for_aiokafka())
        await consumer.start()
        try:
            parts = [TopicPartition(name, p) for p in range(site.catalogue.partitions)]
            consumer.assign(parts)
            await consumer.seek_to_beginning()
            ends = await consumer.end_offsets(parts)
            records: list[list[tuple[str, Any]]] = [[] for _ in parts]
            while any(len(records[p.partition]) < n for p, n in ends.items()):
                for part, messages in (await consumer.getmany(timeout_ms=500)).items():
                    for m in messages:
                        assert m.offset == len(records[part.partition])
                        body = getattr(decode(m.value), "body", None)
                        records[part.partition].append((m.key.decode(), json.loads(body) if body else None))
            return cls(records)
        finally:
            await consumer.stop()

    def at(self, position: str, matches: Any) -> dict[str, Any]:
        """The entities at a position."""
        found: dict[str, Any] = {}
        for partition, end in decode_position(position).next.items():
            found |= dict(self._records[partition][1:end])
        return {key: body for key, body in found.items() if body is not None and matches(body)}

    def news(self, since: str, until: str, matches: Any) -> list[tuple[str, Any]]:
        """What a client with this filter has to be told between two positions."""
        starts, found = decode_position(since).next, []
        for partition, end in decode_position(until).next.items():
            start = starts[partition]
            assert start <= end, "a position goes back"
            held = dict(self._records[partition][1:start])
            for key, body in self._records[partition][max(1, start) : end]:
                before, held[key] = held.get(key), body
                now = body is not None and matches(body)
                if now or (before is not None and matches(before)):
                    found.append((key, body if now else None))
        return found

    def holds(self, client: Client) -> None:
        """After every frame the client held what stands at its position; it was told each change once."""
        before: Step | None = None
        for step in client.steps:
            assert step.rows == self.at(step.position, client.matches)
            if before is not None and not step.fresh:
                news = self.news(before.position, step.position, client.matches)
                told = [] if step.event is None else [(step.event["id"], step.rows.get(step.event["id"]))]
                gone = step.event is not None and step.event["op"] in ("left", "deleted") and not client.enforced
                assert news == told or (gone and not news), "more than clients ignore, or less than there was"
                assert decode_position(step.position).next != decode_position(before.position).next
            before = step


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
                    what = partial(happen, http, dice, truth, written)
                    await client.visit(door, dice, what, dice.choice((0, 2, 50)))
                written.append(await change(http, dice, truth))
                async with two.http() as other:
                    ends = [await end_of(reader, written) for reader in (http, other)]
                assert ends[0] == ends[1]
                for client in clients:
                    await client.visit(dice.choice((one, two)), dice, _nothing, 0, ends[0])
                    assert client.rows == {i: e for i, e in truth.items() if client.matches(e)}, (phase, client.wanted)
    written_apart = await Written.read(site)
    for client in clients:
        written_apart.holds(client)
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


async def test_a_gateway_that_has_just_begun_reads_back_once_and_serves_the_rest_from_memory(site: Site) -> None:
    async with site.gateway() as one, one.http() as http, one.socket() as talk:
        start = await talk.ask(subscribe={"channel": "entities/vm"})
        for n in range(5):
            await http.put(f"/v1/entities/vm/e{n % 2}", json={"n": n})
        pushed = [await talk.push() for _ in range(5)]
        await rows_hold(site, one, pushed[-1]["position"])
        await http.put("/v1/entities/vm/e0", json={"n": 5})
        pushed.append(await talk.push())
    async with site.gateway() as two:
        resumed = {"channel": "entities/vm", "since": start["position"]}
        tail = two.server.gateway.entities["vm"].tail
        assert not tail.reaches({0: 1, 1: 1})
        for _ in range(2):
            async with two.socket() as talk:
                assert (await talk.ask(subscribe=resumed))["resumed"] is True
                again = [await talk.push() for _ in pushed]
            assert [(f["event"], f["entity"]) for f in sorted(again, key=lambda f: f["entity"]["n"])] == [
                (f["event"], f["entity"]) for f in pushed
            ]
            assert tail.reaches({0: 1, 1: 1})
        counted = two.server.gateway.metrics.resumes.labels("entities", "from_memory")._value.get()
        assert counted == 2


async def test_what_the_log_has_no_longer_is_told_even_after_the_answer(site: Site) -> None:
    async with site.gateway(limits=Limits(history_bytes=8_000)) as door, door.http() as http, door.socket() as talk:
        start = (await talk.ask(subscribe={"channel": "entities/vm"}))["position"]
        for n in range(20):
            await http.put("/v1/entities/vm/a", json={"n": n})
        newest = [await talk.push() for _ in range(20)][-1]
        await talk.ask(unsubscribe={"channel": "entities/vm"})
        assert (await talk.ask(subscribe={"channel": "entities/vm", "since": start}))["resumed"] is True
        assert [(await talk.push())["entity"]["n"] for _ in range(20)] == list(range(20)), "from the log"
        await talk.ask(unsubscribe={"channel": "entities/vm"})
        partition, end = next((p, n) for p, n in decode_position(newest["position"]).next.items() if n > 20)
        await forget(site, partition, end - 10)
        assert (await talk.ask(subscribe={"channel": "entities/vm", "since": start}))["resumed"] is True
        assert (await talk.push())["error"]["code"] == "position_lost"
        async with door.stream("entities/vm", last=start) as stream:
            assert (await stream.next()).frame["ok"]["resumed"] is True
            lost = await stream.next()
            assert (lost.name, lost.frame["error"]["code"], lost.id) == ("error", "position_lost", "")
        assert (await talk.ask(subscribe={"channel": "entities/vm"}))["snapshot"][0]["entity"] == {"n": 19}


async def test_a_gap_that_compaction_made_is_a_lost_position(site: Site) -> None:
    async with site.gateway(limits=Limits(history_bytes=8_000)) as door, door.http() as http, door.socket() as talk:
        start = (await talk.ask(subscribe={"channel": "entities/vm"}))["position"]
        for n in range(20):
            await http.put("/v1/entities/vm/a", json={"n": n})
        newest = [await talk.push() for _ in range(20)][-1]
        await talk.ask(unsubscribe={"channel": "entities/vm"})
        await compacted(site, http, "a")
        assert (await talk.ask(subscribe={"channel": "entities/vm", "since": start}))["resumed"] is True
        assert (await talk.push())["error"]["code"] == "position_lost"
        resumed = {"channel": "entities/vm", "since": newest["position"]}
        assert (await talk.ask(subscribe=resumed))["resumed"] is True
        assert [(await talk.push())["entity"]["n"] for _ in range(2)] == [20, 21], "here there is no gap"


async def compacted(site: Site, http: httpx.AsyncClient, entity_id: str) -> None:
    """Write 20 and 21, and wait until the broker's own cleaner has taken all before: it rests for 15 s otherwise."""
    topic = entity_topic("vm")
    at_once = {"segment.ms": "1", "min.cleanable.dirty.ratio": "0.001", "min.compaction.lag.ms": "0"}
    kept = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
    named = ConfigResource(ConfigResourceType.TOPIC, site.catalogue.physical(topic), kept | at_once)
    rests = [ConfigResource(ConfigResourceType.BROKER, "1", c) for c in ({"log.cleaner.backoff.ms": "100"}, {})]
    admin = AIOKafkaAdminClient(bootstrap_servers=site.cluster.bootstrap)
    await admin.start()
    try:
        await admin.alter_configs([named, rests[0]])
        for n in (20, 21):  # each in a segment of its own, and the newest is never cleaned
            await http.put(f"/v1/entities/vm/{entity_id}", json={"n": n})
        async with reading(site.cluster, site.catalogue) as reader, asyncio.timeout(30):
            left = 0
            while left != 2:
                ends = await reader.ends(reader.spots([topic]))
                found = [[r async for r in reader.range(spot, 0, end)] for spot, end in ends.items()]
                left = sum(isinstance(r, Record) and r.key == entity_id for records in found for r in records)
    finally:
        await admin.alter_configs([rests[1]])
        await admin.close()


async def forget(site: Site, partition: int, before: int) -> None:
    """As retention would: the records before an offset are gone."""
    name = site.catalogue.physical(entity_topic("vm"))
    admin = AIOKafkaAdminClient(bootstrap_servers=site.cluster.bootstrap)
    await admin.start()
    try:
        kept = ConfigResource(ConfigResourceType.TOPIC, name, {"cleanup.policy": "compact,delete"})
        await admin.alter_configs([kept])
        await admin.delete_records({TopicPartition(name, partition): RecordsToDelete(before_offset=before)})
    finally:
        await admin.close()


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
