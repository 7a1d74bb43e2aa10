"""The world that a wrapper keeps in a file: a start goes on from it after a kill, whatever was done to it meanwhile,
and on another log it means nothing. And what it reads with: each kind of batch that producers send.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from tests.integration.wrapper_world import World, alert_file
from topics.codec import encode
from topics.events import EntityChanged
from topics.fetch import Spot
from topics.ids import new_id
from wrapper.main import run
from wrapper.reader import FETCH_BYTES, Reader
from wrapper.setting import Timing

# Says of the hosts in each snapshot which they are, and of each change which it was.
PROGRAM = """#!/usr/bin/env python3
import json, sys
hosts = {}
for line in sys.stdin:
    m = json.loads(line)
    if m["type"] == "hello":
        print(json.dumps({"type": "hello", "v": 1}), flush=True)
        continue
    if m["type"] == "entity":
        hosts[m["id"]] = m["value"]["n"]
        if not m.get("snapshot"):
            about = {"key": f"{m['id']}/{m['value']['n']}", "config": "c1", "title": "changed", "kind": "event"}
            print(json.dumps({"type": "notice", **about}))
    if m["type"] == "ready":
        with open("snapshots", "a") as file:
            print(json.dumps(hosts), file=file)
    print(json.dumps({"type": "done"}), flush=True)
"""
RUN = """
import pathlib, sys, threading
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from wrapper.main import run
cluster, catalogue, file = Cluster(sys.argv[1]), Catalogue(("host",), prefix=sys.argv[2]), pathlib.Path(sys.argv[3])
run(cluster, catalogue, [file], stop=threading.Event(), state_dir=file.parent / "state")
"""


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


@pytest.fixture
def another(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, f"{namespace}again-")
    yield world
    world.close()


class Host:
    """A machine whose wrapper begins again and again."""

    def __init__(self, folder: Path) -> None:
        self.file = alert_file(folder, ("tell", "tell.py", PROGRAM))
        self.state, self._snapshots = folder / "state", folder / "snapshots"

    def told(self, world: World, *changes: str) -> dict[str, int]:
        """What the snapshot of this run is; `changes` come once it is ready, and have been said at the return."""
        chain = world.chain("tell")
        chain.until(lambda: self._snapshots.exists() and self._snapshots.read_text().endswith("\n"))
        for host in changes:
            world.host(host, {"n": 100})
        chain.until(lambda: {f"{host}/100" for host in changes} <= {e.key for e in chain.effects})
        assert len({e.key for e in chain.effects}) == len(chain.effects)
        return dict(json.loads(self._snapshots.read_text().splitlines()[-1]))

    @contextmanager
    def killed(self, world: World) -> Iterator[None]:
        """A wrapper of its own process, to the kill -9."""
        self._snapshots.unlink(missing_ok=True)
        arguments = [world.cluster.bootstrap, world.catalogue.prefix, str(self.file)]
        with Popen([sys.executable, "-c", RUN, *arguments], cwd=Path(__file__).resolve().parents[2]) as process:
            try:
                yield
            finally:
                process.kill()

    @contextmanager
    def stopped(self, world: World) -> Iterator[None]:
        """A wrapper that ends when it is asked to."""
        self._snapshots.unlink(missing_ok=True)
        stop, timing = threading.Event(), Timing(restart=0.05)
        how = {"stop": stop, "timing": timing, "state_dir": self.state}
        thread = threading.Thread(target=run, args=(world.cluster, world.catalogue, [self.file]), kwargs=how)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(30)


def test_a_wrapper_goes_on_from_its_file_and_from_the_log_where_that_can_not_be_believed(
    world: World, another: World, tmp_path: Path
) -> None:
    host, kept = Host(tmp_path), tmp_path / "state" / "tell-0.world"
    for log, sign in ((world, 1), (another, -1)):
        log.config("c1", "tell", "1")
        for i in range(50):
            log.host(f"h{i}", {"n": i * sign})
        log.flush()
    hosts = {f"h{i}": i for i in range(50)}
    with host.killed(world):
        assert host.told(world, "h1", "h2") == hosts
    with host.stopped(world):
        assert host.told(world, "h3") == hosts | {"h1": 100, "h2": 100}
    data = kept.read_bytes()
    assert b'{"n": 7}' in data
    kept.write_bytes(data.replace(b'{"n": 7}', b'{"n": 8}'))
    with host.stopped(world):
        assert host.told(world) == hosts | {"h1": 100, "h2": 100, "h3": 100}
    with host.stopped(another):
        assert host.told(another, "h4") == {f"h{i}": -i for i in range(50)}


async def test_every_kind_of_batch_is_read(world: World) -> None:
    catalogue, sent = world.catalogue, dict[str, int]()

    async def send(size: int, **how: Any) -> None:
        producer = AIOKafkaProducer(**world.cluster.for_aiokafka(), max_request_size=4 * FETCH_BYTES, **how)
        await producer.start()
        for _ in range(3):
            key = f"k{len(sent)}"
            body = b'{"n": "%s"}' % (b"x" * size)
            about: dict[str, Any] = {"event_id": new_id(), "producer": "t", "occurred_at": 0, "entity_type": "host"}
            event = EntityChanged(**about, entity_id=key, op="updated", body=body)
            if "transactional_id" in how:
                async with producer.transaction():
                    await producer.send(catalogue.physical("entities.host"), encode(event), key.encode())
            else:
                await producer.send(catalogue.physical("entities.host"), encode(event), key.encode())
            sent[key] = size
        await producer.stop()

    await send(10)
    await send(10, compression_type="gzip")
    await send(10, transactional_id=f"{catalogue.prefix}t")
    await send(FETCH_BYTES + 1000)  # more than a fetch asks for
    with closing(Reader(world.cluster, catalogue, "any", threading.Event())) as reader:
        spots = reader.spots(["entities.host"])
        ends = reader.ends(spots)
        events = [getattr(r, "event", None) for r in reader.range({s: (0, ends[s]) for s in spots})]
        found = [e for e in events if isinstance(e, EntityChanged)]
        assert {e.entity_id: len(e.body or b"") - len(b'{"n": ""}') for e in found} == sent
        assert len(events) == len(sent) + len(spots)  # each begins with its TopicOpened
        assert all(reader.position(Spot(s.topic, s.partition)) >= ends[s] for s in spots)
