"""The wrapper's reader: partitions that rest and are read again lose no record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.integration.wrapper_world import World
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
