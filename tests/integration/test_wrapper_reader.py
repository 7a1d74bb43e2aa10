"""The wrapper's reader: partitions that rest and are read again lose no record, and other topics are not asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from kafka.conn import BrokerConnection

from tests.integration.wrapper_world import World
from topics.catalogue import ALERT_CONFIGS
from topics.fetch import Spot
from wrapper.reader import FETCH_WAIT_MS, Reader


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


def test_a_partition_that_rested_goes_on_where_it_was(world: World) -> None:
    with closing(Reader(world.cluster, world.catalogue, "any", threading.Event())) as reader:
        spots = reader.spots(["entities.host"])
        reader.follow(dict.fromkeys(spots, 0), live=True)
        seen: list[tuple[int, int]] = []

        def read_on() -> None:
            seen.extend((r.partition, r.offset) for r in reader.poll(FETCH_WAIT_MS / 5))

        while any(reader.position(s) < end for s, end in reader.ends(spots).items()):
            read_on()
        for i in range(30):
            read_on()  # nothing is there: a long poll is under way for all partitions
            reader.pause(spots)
            placed = [world.host(f"h{j}", {"n": i}).get(timeout=10) for j in range(4)]
            read_on()  # what the long poll brings now is dropped
            reader.resume(spots)
            while any(reader.position(Spot("entities.host", p.partition)) <= p.offset for p in placed):
                read_on()
        ends = reader.ends(spots)
    assert sorted(seen) == [(s.partition, offset) for s in spots for offset in range(ends[s])]


def test_a_cluster_is_not_asked_for_all_its_topics(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    send = BrokerConnection.send

    def seen(connection: BrokerConnection, request: Any, **how: Any) -> Any:
        if type(request).__name__.startswith("MetadataRequest"):
            asked.append(set(request.topics or ()))
        return send(connection, request, **how)

    monkeypatch.setattr(BrokerConnection, "send", seen)
    with closing(Reader(world.cluster, world.catalogue, "any", threading.Event())) as reader:
        spots = reader.spots([ALERT_CONFIGS])
        ends = reader.ends(spots)
        reader.follow(dict.fromkeys(spots, 0), live=True)
        while any(reader.position(s) < ends[s] for s in spots):
            list(reader.poll(FETCH_WAIT_MS))
    assert asked
    assert all(asked)
