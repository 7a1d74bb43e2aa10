"""A log with a story on it: an entity changes, an alert's commits speak of it, and what follows is the worker's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from click.testing import CliRunner, Result

from tests.integration.gateway_world import Site
from tidings.cli.main import cli
from topics.catalogue import ALERT_CONFIGS, NOTICE_REQUESTS, entity_topic
from topics.events import (
    AlertCommitted,
    AlertConfigured,
    AlertStarted,
    Cause,
    Effect,
    EntityChanged,
    Event,
    Lane,
    Record,
)
from topics.fetch import reading
from topics.ids import alert_notice_id, derived_id, new_id
from topics.json_text import dumps
from topics.produce import Placed, Producer, now_us

ALERT, CONFIG, KEY = "overuse", "c1", "c1/web-1"
VALUE = {"name": ALERT, "metric": {"field": "cpu", "high": 90}, "channel": {"inbox": ["ann"], "email": ["bob"]}}


def by_test() -> dict[str, Any]:
    return {"event_id": new_id(), "producer": "test", "occurred_at": now_us()}


class Scene:
    """What a backend, an alert and a sender write, in the order in which a test calls."""

    def __init__(self, site: Site, producer: Producer) -> None:
        self.site, self._producer = site, producer
        self.causes: list[Cause] = []
        self.run = -1
        self.number = 0

    @property
    def settings(self) -> dict[str, str]:
        """For the command line."""
        return {
            "kafka": self.site.cluster.bootstrap,
            "entity_types": "vm,task",
            "topic_prefix": self.site.catalogue.prefix,
            "partitions": "2",
        }

    async def say(self, topic: str, key: str, event: Event) -> Placed:
        return await self._producer.send(topic, key, event)

    async def config(self) -> None:
        event = AlertConfigured(
            **by_test(), config_id=CONFIG, version=3, name=ALERT, enabled=True, lanes=(), forward="",
            body=dumps(VALUE).encode(),
        )  # fmt: skip
        self._cause(event, await self.say(ALERT_CONFIGS, CONFIG, event))

    async def change(self, cpu: int) -> EntityChanged:
        event = EntityChanged(
            **by_test(), entity_type="vm", entity_id="web-1", op="updated", version=17, body=b'{"cpu":%d}' % cpu
        )
        self._cause(event, await self.say(entity_topic("vm"), "web-1", event))
        return event

    async def start(self) -> None:
        event = AlertStarted(**by_test(), alert=ALERT, shard=0, shards=1, instance="i")
        self.run, self.number = (await self.say(NOTICE_REQUESTS, ALERT, event)).offset, 0

    async def commit(
        self,
        op: str,
        *lanes: Lane,
        run: int | None = None,
        forward: str = "",
        notice_id: str | None = None,
        key: str = KEY,
        more: bool = False,
    ) -> str:
        """The next commit of the run, or a part of it, one word about the condition; the notice's id."""
        self.number += 1
        at = self.run if run is None else run
        notice_id = notice_id or alert_notice_id(ALERT, 0, at, self.number, 0)
        cpu = "97" if op == "raise" else "12"
        body = f'{{"notice":{{"title":"cpu of web-1 is {cpu}%"}},"config":{dumps(VALUE)},"entity":{{"cpu":{cpu}}}}}'
        effect = Effect(
            op, key, notice_id, 0, CONFIG, "vm", "web-1", "warning", lanes, forward, tuple(self.causes[-2:]), None,
            body.encode(),
        )  # fmt: skip
        event = AlertCommitted(
            event_id=derived_id("commit", ALERT, 0, at, self.number), producer="test", occurred_at=now_us(),
            alert=ALERT, shard=0, run=at, number=self.number, more=more, effects=(effect,), positions=(), now=0,
            state_changed=False, state=b"",
        )  # fmt: skip
        await self.say(NOTICE_REQUESTS, ALERT, event)
        return notice_id

    async def log(self, topic: str, holds: Callable[[list[Record]], object], seconds: float = 30) -> list[Record]:
        """The records of a topic once they hold."""
        async with reading(self.site.cluster, self.site.catalogue) as reader, asyncio.timeout(seconds):
            spots = reader.spots([topic])
            while True:
                found = []
                for spot, end in (await reader.ends(spots)).items():
                    found += [r async for r in reader.range(spot, 0, end) if isinstance(r, Record)]
                if holds(found):
                    return found
                await asyncio.sleep(0.05)

    def _cause(self, event: Event, placed: Placed) -> None:
        self.causes.append(Cause(event.event_id, placed.topic, placed.partition, placed.offset))


@asynccontextmanager
async def scene(site: Site) -> AsyncIterator[Scene]:
    """A scene on a site that was made."""
    producer = Producer(site.cluster, site.catalogue, "test")
    await producer.start()
    try:
        yield Scene(site, producer)
    finally:
        await producer.stop()


async def command(play: Scene, *arguments: str) -> Result:
    """`tidings` with these arguments, without a process of its own."""
    env = {f"TIDINGS_{name.upper()}": value for name, value in play.settings.items()}
    return await asyncio.to_thread(CliRunner().invoke, cli, list(arguments), env=env)


def lane(channel: str, user: str, after_ms: int = 0, kind: str = "recipient") -> Lane:
    return Lane("" if channel == "inbox" else channel, channel, kind, user, after_ms)
