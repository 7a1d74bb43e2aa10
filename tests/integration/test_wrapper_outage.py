"""The broker goes away while a program is at work and comes back: the program lives on, what it said meanwhile stands
on the log once, and no tick is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from kafka.errors import KafkaError

from broker.embedded import EmbeddedBroker
from tests.integration.wrapper_world import World, alert_file
from topics.catalogue import NOTICE_REQUESTS
from wrapper.reader import Reader

WAITS = """#!/usr/bin/env python3
import json, os, sys, time

def say(**message):
    print(json.dumps(message), flush=True)

for text in sys.stdin:
    line = json.loads(text)
    if line["type"] == "hello":
        say(type="hello", v=1, tick_s=1)
        continue
    if line["type"] == "entity" and not line.get("snapshot"):
        print("got", line["id"], file=sys.stderr, flush=True)
        while not os.path.exists(line["id"]):
            time.sleep(0.01)
        say(type="notice", key=line["id"], config="c1", title="t")
    if line["type"] == "tick":
        say(type="notice", key=str(line["now"]), config="c1", title="t", kind="event")
    say(type="done")
"""


def _until(done: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(6000):
        if done():
            return
        pause.wait(0.01)
    pytest.fail("not within a minute")


def test_a_broker_that_was_away_costs_neither_the_program_nor_what_it_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "alert.waits")
    with EmbeddedBroker(tmp_path / "kafka") as broker:
        world = World(broker.bootstrap, "outage-")
        try:
            world.config("c1", "waits", "1")
            wrapper = world.wrapper(alert_file(tmp_path, ("waits", "waits.py", WAITS)))
            assert wrapper.ready.wait(30)
            world.host("a", {}).get(timeout=10)
            _until(lambda: "got a" in caplog.text)
            broker.kill()
            (tmp_path / "a").touch()
            _until(lambda: wrapper.numbers["waits"].open == 1)
            broker.start()
            (tmp_path / "b").touch()
            world.host("b", {}).get(timeout=60)
            chain, reports = world.chain("waits"), world.reports()
            chain.until(lambda: ("raise", "b") in chain.said(), 60)
            reports.until(lambda: bool(reports.of("waits", "started")))
            assert wrapper.stop() == 0
            assert [key for op, key in chain.said() if op == "raise"] == ["a", "b"]
            ticks = [int(key) for op, key in chain.said() if op == "event"]
            assert ticks == list(range(ticks[0], ticks[-1] + 1, 1000))
            assert len(reports.of("waits", "started")) == 1
            stop = threading.Event()
            with closing(Reader(world.cluster, world.catalogue, "any", stop)) as reader:
                broker.kill()
                stop.set()
                with pytest.raises(KafkaError):  # who is asked to stop does not wait for the broker
                    reader.ends(reader.spots([NOTICE_REQUESTS]))
                broker.start()
        finally:
            world.close()
