"""A client that is given up while it starts leaves no connection behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.fetch import Spot, reading
from topics.follow import following


@pytest.mark.parametrize("follows", [False, True])
async def test_a_reader_given_up_at_any_step_of_its_start_leaves_no_connection_open(
    kafka: str, *, follows: bool
) -> None:
    left: list[dict[str, Any]] = []
    loop, catalogue = asyncio.get_running_loop(), Catalogue(())
    loop.set_exception_handler(lambda _, context: left.append(context))

    async def read() -> None:
        cluster = Cluster(kafka)
        client = following(cluster, catalogue, {Spot("none", 0): 0}) if follows else reading(cluster, catalogue)
        async with client:
            await asyncio.Event().wait()

    gc.freeze()  # what the other tests left is not looked through forty times
    for steps in range(40):
        given_up = asyncio.create_task(read())
        for _ in range(steps):
            await asyncio.sleep(0.0002)
        given_up.cancel()
        await asyncio.wait([given_up])
        gc.collect()
    await asyncio.sleep(0)
    gc.unfreeze()
    assert left == []
