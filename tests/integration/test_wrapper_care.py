"""How the wrapper cares for programs: what they may use, what they stumble over, changed files, shards, the simplest
ones; and who is told when one gets nowhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.integration.wrapper_world import FAST, World, alert_file
from topics.catalogue import NOTICE_REQUESTS
from topics.codec import decode
from topics.events import AlertMoved, NoticeRequested, NoticeResolved
from topics.partition import partition_of

# Says once of each entity what its body asks for: to be raised, to hog memory, to open files, to stop.
ODD = """#!/usr/bin/env python3
import json, os, sys
hog = []
for line in sys.stdin:
    m = json.loads(line)
    if m["type"] == "hello":
        print(json.dumps({"type": "hello", "v": 1}), flush=True)
        continue
    if m["type"] == "entity" and m["op"] == "set":
        what = m["value"]["what"]
        if what == "hog":
            hog.append(bytearray(os.urandom(1)) * 200_000_000)
            hog.append(sys.stdin.readline())  # never answered
        if what == "stop":
            sys.exit("a host that I can't stand")
        title = what
        if what == "files":
            try:
                title = str(len([open(os.devnull) for _ in range(300)]))
            except OSError as error:
                title = error.strerror
        if what == "who":
            title = str(os.getuid())
        about = {"type": "host", "id": m["id"]}
        print(json.dumps({"type": "notice", "key": m["id"], "config": "c1", "title": title, "entity": about}))
    print(json.dumps({"type": "done"}), flush=True)
"""


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


def _titles(world: World, count: int, alert: str = "odd") -> list[tuple[str, str]]:
    chain = world.chain(alert)
    chain.until(lambda: len(chain.effects) >= count)
    return [(e.key, json.loads(e.body)["notice"]["title"]) for e in chain.effects]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Where `nobody` may go, too: pytest's own folders are closed again whenever other tests begin."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_what_a_program_uses_is_bounded_and_what_it_stumbles_over_is_put_aside(open_folder: Path, world: World) -> None:
    file = alert_file(open_folder, ("odd", "odd.py", ODD))
    limits = 'limits = { memory = "100M", files = 64 }\n'
    file.write_text(file.read_text() + limits + ('user = "nobody"\n' if os.geteuid() == 0 else ""))
    world.config("c1", "odd", "1")
    world.host("a", {"what": "stop"})  # a part of the snapshot
    wrapper = world.wrapper(file, replace(FAST, failed_restarts=50))
    assert wrapper.ready.wait(30)
    for host, what in (("b", "files"), ("c", "hog"), ("d", "stop"), ("e", "who")):
        world.host(host, {"what": what}).get(timeout=10)
    told = dict(_titles(world, 2))
    assert told["b"] == "Too many open files"
    assert told["e"] == ("65534" if os.geteuid() == 0 else str(os.getuid()))
    reports, letters = world.reports(), world.view("dead-letters")
    reports.until(lambda: len(reports.of("odd", "poison")) == 3)
    assert "its limit is 100 MiB" in " ".join(r["text"] for r in reports.of("odd", "poison"))
    assert [r["stderr"] for r in reports.of("odd", "poison") if "exit" in r["text"]] == [
        "a host that I can't stand"
    ] * 2
    letters.until(lambda: sum(dict(m.headers).get("reason") == b"poison" for m in letters.messages) == 3)
    assert wrapper.numbers["odd"].ends["memory"] >= 3
    assert wrapper.numbers["odd"].ends["exit 1"] >= 6
    assert wrapper.stop() == 0
    again = world.wrapper(file, replace(FAST, failed_restarts=50))
    assert again.ready.wait(30)
    world.host("f", {"what": "new"}).get(timeout=10)
    assert dict(_titles(world, 3))["f"] == "new"
    assert not again.numbers["odd"].ends, "what was put aside stays there"
    mended = ODD.replace('"hog"', "None").replace('"stop"', "None")
    (open_folder / "odd.py").write_text(mended)  # another program is given everything
    assert {"a", "c", "d"} <= dict(_titles(world, 6)).keys()


def test_a_changed_file_is_read_again_and_a_broken_one_changes_nothing(world: World, tmp_path: Path) -> None:
    world.config("c1", "first", "1")
    file = alert_file(tmp_path, ("first", "odd.py", ODD))
    wrapper = world.wrapper(file)
    assert wrapper.ready.wait(20)
    reports, right = world.reports(), file.read_text()
    reports.until(lambda: len(reports.of("first", "started")) == 1)
    file.write_text("[[alert]]\nname = 5\n")
    program = tmp_path / "odd.py"
    program.write_text(ODD.replace("title = what", "title = what.upper()"))  # is news, whatever the file says
    reports.until(lambda: len(reports.of("first", "started")) == 2)
    world.host("a", {"what": "new"}).get(timeout=10)
    assert _titles(world, 1, "first") == [("a", "NEW")]
    file.write_text(right.replace("first", "second"))
    reports.until(lambda: len(reports.of("first", "stopped")) == 2 and len(reports.of("second", "started")) == 1)


def test_the_operators_are_told_once_of_a_program_that_gets_nowhere_and_when_it_does(
    world: World, tmp_path: Path
) -> None:
    file = alert_file(tmp_path, ("exits", "exits.sh", "#!/bin/sh\nexit 3\n"))
    wrapper = world.wrapper(file, replace(FAST, failed_restarts=3), operators=("ann", "bob"))
    assert wrapper.ready.wait(20)
    told = world.view(NOTICE_REQUESTS)

    def notices() -> list[NoticeRequested | NoticeResolved]:
        events = [decode(m.value) for m in told.messages]
        return [e for e in events if isinstance(e, NoticeRequested | NoticeResolved)]

    told.until(lambda: len(notices()) == 1)
    (asked,) = notices()
    assert isinstance(asked, NoticeRequested)
    assert asked.users == ("ann", "bob")
    assert "exit code 3" in json.loads(asked.body)["text"]
    (tmp_path / "exits.sh").write_text(ODD)
    told.until(lambda: len(notices()) == 2)
    assert (type(notices()[1]), notices()[1].key) == (NoticeResolved, asked.key)


PLAIN = """#!/bin/sh
while read -r line; do
  case $line in
    *'"type":"entity"'*) echo '{"type":"notice","key":"seen","config":"c1","title":"a host"}' ;;
    *'"type":"ready"'*) echo 'ready, says the log' ;;
  esac
done
"""


def test_the_simplest_program_says_neither_hello_nor_done(world: World, tmp_path: Path) -> None:
    world.config("c1", "plain", "1")
    file = alert_file(tmp_path, ("plain", "plain.sh", PLAIN))
    file.write_text(file.read_text() + 'mode = "plain"\n')
    wrapper = world.wrapper(file)
    assert wrapper.ready.wait(20)
    for host in ("a", "b"):
        world.host(host, {}).get(timeout=10)
    assert _titles(world, 1, "plain") == [("seen", "a host")]
    assert wrapper.stop() == 0
    assert world.wrapper(file).ready.wait(20)  # told of the world again; the key says that it was raised
    world.config("c1", "plain", "2")
    world.delete_config("c1", "plain")
    chain = world.chain("plain")
    chain.until(lambda: len(chain.effects) == 2)
    assert chain.said() == [("raise", "seen"), ("resolve", "seen")]


def test_shards_divide_the_entities_and_another_number_of_them_neither_loses_nor_doubles(
    world: World, tmp_path: Path
) -> None:
    world.config("c1", "odd", "1")
    file = alert_file(tmp_path, ("odd", "odd.py", ODD))
    one = file.read_text()
    wrapper = world.wrapper(file)
    assert wrapper.ready.wait(20)
    hosts = [f"h{i}" for i in range(8)]
    partitions = world.catalogue.topics()["entities.host"].partitions
    for host in hosts[:4]:
        world.host(host, {"what": "first"}).get(timeout=10)
    said = world.chain("odd")
    said.until(lambda: len(said.effects) == 4)
    file.write_text(one + "shards = 2\n")
    reports = world.reports()
    reports.until(lambda: {r.shard for r in reports.reports if r.kind == "started"} == {0, 1})
    second = world.wrapper(file)  # a second instance takes one of the two
    assert second.ready.wait(20)
    for host in hosts[4:]:
        world.host(host, {"what": "second"}).get(timeout=10)
    world.host(hosts[0], None).get(timeout=10)  # its key came over from the only shard that there was
    requests = world.view(NOTICE_REQUESTS)

    def effects() -> list[tuple[int, str, str]]:
        events = [decode(m.value) for m in requests.messages]
        return [(getattr(e, "shard", -1), f.op, f.key) for e in events for f in getattr(e, "effects", ())]

    requests.until(lambda: len(effects()) >= 9)
    ends, raised = [e for e in effects() if e[1] == "resolve"], [e for e in effects() if e[1] == "raise"]
    assert ends == [(partition_of(hosts[0], partitions) % 2, "resolve", hosts[0])]
    assert sorted(key for _, _, key in raised) == hosts
    assert all(shard == partition_of(key, partitions) % 2 for shard, _, key in raised[4:])
    assert len([m for m in requests.messages if isinstance(decode(m.value), AlertMoved)]) == 1
    assert {"odd/1", "odd/2"} <= set(second.numbers)
