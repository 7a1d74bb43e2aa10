"""The wrapper on a real broker: a change becomes a notice, exactly once, with the config's own words in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.wrapper_world import EXAMPLES, World, alert_file

ODD_METRIC = '{"field": "cpu", "high": 90.10, "low": 7e1, "for_s": 0, "x": 1e400, "x": "\\u00e9 \\" 1.10"}'
ODD_METRIC_COMPACT = '{"field":"cpu","high":90.10,"low":7e1,"for_s":0,"x":1e400,"x":"\\u00e9 \\" 1.10"}'

NARROWING = """#!/usr/bin/env python3
import json, sys
for line in sys.stdin:
    m = json.loads(line)
    if m["type"] == "hello":
        print(json.dumps({"type": "hello", "v": 1}), flush=True)
        continue
    if m["type"] == "entity" and m["op"] == "set":
        print(json.dumps({"type": "notice", "key": m["id"], "config": "c1", "title": "t", "severity": "critical",
                          "to": {"email": ["u2", "u9"], "telegram": ["u1"]}, "link": "/x", "kind": "event"}))
        print(json.dumps({"type": "notice", "key": "k", "config": "nobody", "title": "t"}))
        print("some text for the log")
        print("{broken")
        print(json.dumps({"type": "error", "config": "c1", "text": "metric is odd"}))
    print(json.dumps({"type": "done"}), flush=True)
"""


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


def test_a_change_becomes_a_notice_and_another_change_resolves_it(world: World) -> None:
    world.config("c1", "overuse", ODD_METRIC)
    world.host("web", {"id": "web", "name": "web-1", "cpu": 5}).get(timeout=10)
    wrapper = world.wrapper(EXAMPLES / "alerts.toml")
    assert wrapper.ready.wait(20)
    chain = world.chain("overuse")
    placed = world.host("web", {"id": "web", "name": "web-1", "cpu": 95}).get(timeout=10)
    chain.until(lambda: bool(chain.effects))
    world.host("web", {"id": "web", "name": "web-1", "cpu": 50}).get(timeout=10)
    chain.until(lambda: len(chain.effects) == 2)
    raised, resolved = chain.effects
    assert (raised.op, raised.key, raised.config_id, raised.severity) == ("raise", "c1/host/web", "c1", "warning")
    assert (raised.entity_type, raised.entity_id, raised.forward) == ("host", "web", '{"digest":"10m"}')
    assert [lane.value for lane in raised.lanes] == ["u1", "u2"]
    assert raised.now == placed.timestamp
    assert [c.topic for c in raised.caused_by] == ["alert-configs", "entities.host"]
    assert (raised.caused_by[1].partition, raised.caused_by[1].offset) == (placed.partition, placed.offset)
    body = json.loads(raised.body)
    assert body["notice"]["title"] == "cpu of web-1 is 95%"
    assert body["entity"] == {"id": "web", "name": "web-1", "cpu": 95}
    assert body["config"]["name"] == "overuse"
    assert (resolved.op, resolved.key, resolved.notice_id) == ("resolve", "c1/host/web", raised.notice_id)
    assert wrapper.stop() == 0


def test_the_metric_reaches_the_notice_as_it_was_written(world: World) -> None:
    world.config("c1", "overuse", ODD_METRIC)
    assert world.wrapper(EXAMPLES / "alerts.toml").ready.wait(20)
    chain = world.chain("overuse")
    world.host("web", {"cpu": 95})
    chain.until(lambda: bool(chain.effects))
    text = chain.effects[0].body.decode()
    assert f'"metric":{ODD_METRIC}' in text or f'"metric":{ODD_METRIC_COMPACT}' in text


def test_the_shell_example_watches_disks(world: World) -> None:
    world.config("c2", "disk-nearly-full", '{"percent": 90}')
    assert world.wrapper(EXAMPLES / "alerts.toml").ready.wait(20)
    chain = world.chain("disk-nearly-full")
    world.host("web", {"name": "web-1", "disks": [{"mount": "/", "percent": 97.1}, {"mount": "/srv", "percent": 20}]})
    chain.until(lambda: bool(chain.effects))
    world.host("web", {"name": "web-1", "disks": [{"mount": "/", "percent": 60}]})
    chain.until(lambda: len(chain.effects) == 2)
    assert chain.said() == [("raise", "c2/web"), ("resolve", "c2/web")]
    assert json.loads(chain.effects[0].body)["notice"]["title"] == "Disk / of web-1 is 97.1% full"


def test_what_is_disabled_or_deleted_leaves_no_open_notice(world: World) -> None:
    for config in ("c1", "c2"):
        world.config(config, "overuse", '{"field": "cpu", "high": 90}')
    assert world.wrapper(EXAMPLES / "alerts.toml").ready.wait(20)
    chain = world.chain("overuse")
    for host in ("a", "b"):
        world.host(host, {"cpu": 99}).get(timeout=10)
    chain.until(lambda: len(chain.effects) == 4)
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}', enabled=False)
    chain.until(lambda: len(chain.effects) == 6)
    world.host("a", None)
    chain.until(lambda: len(chain.effects) == 7)
    world.delete_config("c2", "overuse")
    chain.until(lambda: len(chain.effects) == 8)
    ended = [key for op, key in chain.said() if op == "resolve"]
    assert sorted(ended[:2]) == ["c1/host/a", "c1/host/b"]
    assert ended[2:] == ["c2/host/a", "c2/host/b"]
    assert not chain.chain.fold.open


def test_a_notice_reaches_nobody_whom_the_config_does_not_name(world: World, tmp_path: Path) -> None:
    world.config("c1", "narrow", "1")
    assert world.wrapper(alert_file(tmp_path, ("narrow", "narrow.py", NARROWING))).ready.wait(20)
    chain = world.chain("narrow")
    world.host("web", {})
    chain.until(lambda: bool(chain.effects))
    assert [(lane.channel, lane.value) for lane in chain.effects[0].lanes] == [("email", "u2")]
    assert chain.effects[0].op == "event"
    world.host("web", {"again": True}).get(timeout=10)
    world.host("db", {})
    chain.until(lambda: len(chain.effects) == 2)
    assert chain.said() == [("event", "web"), ("event", "db")]


def test_bad_lines_and_errors_are_told_to_people(world: World, tmp_path: Path) -> None:
    world.config("c1", "narrow", "1")
    assert world.wrapper(alert_file(tmp_path, ("narrow", "narrow.py", NARROWING))).ready.wait(20)
    reports, dead = world.reports(), world.view("dead-letters")
    world.host("web", {})
    reports.until(lambda: len(reports.of("narrow", "rejected")) == 2 and bool(reports.of("narrow", "error")))
    assert {r["reason"] for r in reports.of("narrow", "rejected")} == {"bad_json", "unknown_config"}
    assert [r.config_id for r in reports.reports if r.kind == "error"] == ["c1"]
    dead.until(lambda: len([m for m in dead.messages if m.headers]) == 2)
    letter = next(m for m in dead.messages if dict(m.headers).get("reason") == b"bad_json")
    assert letter.value == b"{broken"
    assert dict(letter.headers)["alert"] == b"narrow"


def test_an_unreadable_record_is_put_aside_and_the_next_one_counts(world: World) -> None:
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    assert world.wrapper(EXAMPLES / "alerts.toml").ready.wait(20)
    chain, dead = world.chain("overuse"), world.view("dead-letters")
    world.put("entities.host", "web", b"no event of ours").get(timeout=10)
    world.host("web", {"cpu": 99})
    chain.until(lambda: bool(chain.effects))
    dead.until(lambda: any(m.value == b"no event of ours" for m in dead.messages))
    letter = next(m for m in dead.messages if m.value == b"no event of ours")
    assert dict(letter.headers)["topic"] == b"entities.host"
