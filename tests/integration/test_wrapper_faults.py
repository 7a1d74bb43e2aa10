"""kill -9 of programs and wrappers, two wrappers at once, programs that misbehave: nothing lost, nothing twice, nothing
else stops.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.wrapper_world import EXAMPLES, FAST, ChainView, ReportView, World, alert_file, alive
from topics.events import Record
from topics.fetch import to_record
from wrapper.checkpoint import Checkpoints

PORTION, HOSTS, KILLS = 100, 7, 6


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


def _overuse_only(directory: Path) -> Path:
    file = directory / "alerts.toml"
    file.write_text(
        f'[[alert]]\nname = "overuse"\nrun = ["python3", "overuse.py"]\nentities = ["host"]\n'
        f'cwd = "{EXAMPLES / "overuse"}"\n'
    )
    return file


def _values(host: int) -> Iterator[int]:
    """Up and down, with some changes that say nothing."""
    return itertools.cycle((*(95, 96, 40, 99, 80, 30, 91)[host % 3 :], 50))


def _expected(told: dict[str, list[int]]) -> dict[str, list[str]]:
    """What one uninterrupted program says about each host: above 90 raises, below 70 resolves."""
    out: dict[str, list[str]] = {}
    for host, values in told.items():
        said = out[f"c1/host/{host}"] = []
        open_ = False
        for value in values:
            if (not open_ and value > 90) or (open_ and value < 70):
                open_ = not open_
                said.append("raise" if open_ else "resolve")
    return out


class Flow:
    """Changes of all hosts, in portions: each portion flows while a kill happens."""

    def __init__(self, world: World) -> None:
        self.told: dict[str, list[int]] = defaultdict(list)
        self._world, self._values, self._count = world, {h: _values(h) for h in range(HOSTS)}, itertools.count()

    def portion(self) -> threading.Thread:
        thread = threading.Thread(target=self._produce)
        thread.start()
        return thread

    def _produce(self) -> None:
        pause = threading.Event()
        for _ in range(PORTION):
            i = next(self._count)
            value = next(self._values[i % HOSTS])
            self.told[f"h{i % HOSTS}"].append(value)
            self._world.host(f"h{i % HOSTS}", {"cpu": value, "n": i})
            pause.wait(0.004)  # a stream, not a burst
        self._world.flush()


def _judge(chain: ChainView, told: dict[str, list[int]]) -> None:
    expected = _expected(told)
    total = sum(map(len, expected.values()))
    chain.until(lambda: len(chain.effects) >= total, 60)
    found = defaultdict(list)
    for effect in chain.effects:
        found[effect.key].append(effect.op)
    assert found == expected
    raised = [e.notice_id for e in chain.effects if e.op == "raise"]
    assert len(set(raised)) == len(raised)


def test_programs_that_are_killed_lose_and_double_nothing(world: World, tmp_path: Path) -> None:
    world.config("c1", "overuse", '{"field": "cpu", "high": 90, "low": 70}')
    wrapper = world.wrapper(_overuse_only(tmp_path))
    assert wrapper.ready.wait(20)
    chain, reports, flow = world.chain("overuse"), world.reports(), Flow(world)
    for kill in range(1, KILLS + 1):
        reports.until(lambda kill=kill: len(reports.of("overuse", "started")) >= kill)  # type: ignore[misc]
        _kill_in_the_flow(flow, chain, lambda: os.kill(_pid(reports), signal.SIGKILL))
    _judge(chain, flow.told)
    assert wrapper.numbers["overuse"].restarts == KILLS


def test_wrappers_that_are_killed_lose_and_double_nothing(world: World, tmp_path: Path) -> None:
    world.config("c1", "overuse", '{"field": "cpu", "high": 90, "low": 70}')
    file = _overuse_only(tmp_path)
    chain, reports, flow = world.chain("overuse"), world.reports(), Flow(world)
    process = world.wrapper_process(file)
    chain.until(lambda: chain.chain.fold.positions is not None)  # from here on every change is a line
    for kill in range(1, KILLS + 1):
        reports.until(lambda kill=kill: len(reports.of("overuse", "started")) >= kill)  # type: ignore[misc]
        _kill_in_the_flow(flow, chain, process.kill)
        process.wait()
        _dies(_pid(reports))
        process = world.wrapper_process(file)
    _judge(chain, flow.told)


def _kill_in_the_flow(flow: Flow, chain: ChainView, kill: Callable[[], None]) -> None:
    had, portion = len(chain.effects), flow.portion()
    chain.until(lambda: len(chain.effects) > had + 3)
    kill()
    portion.join()


def _pid(reports: ReportView) -> int:
    return int(reports.of("overuse", "started")[-1]["pid"])


def _dies(pid: int) -> None:
    """The program ends with its wrapper."""
    waiting = threading.Event()
    for _ in range(500):
        if not alive(pid):
            return
        waiting.wait(0.01)
    pytest.fail(f"the program {pid} outlived its wrapper")


def test_a_second_wrapper_stands_by_and_takes_over_when_the_first_stops_or_is_killed(
    world: World, tmp_path: Path
) -> None:
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    file, chain = _overuse_only(tmp_path), world.chain("overuse")
    process = world.wrapper_process(file)
    world.host("a", {"cpu": 99})
    chain.until(lambda: len(chain.effects) == 1)
    first = world.wrapper(file)
    assert first.ready.wait(20)
    assert first.numbers["overuse"].state == "standby"
    process.kill()
    world.host("b", {"cpu": 99})
    chain.until(lambda: len(chain.effects) == 2)  # once its session is over
    second = world.wrapper(file)
    assert second.ready.wait(20)
    assert (first.numbers["overuse"].state, second.numbers["overuse"].state) == ("running", "standby")
    assert first.stop() == 0
    world.host("a", {"cpu": 1})
    chain.until(lambda: len(chain.effects) == 3)
    assert chain.said() == [("raise", "c1/host/a"), ("raise", "c1/host/b"), ("resolve", "c1/host/a")]
    assert second.stop() == 0


def test_after_a_gap_the_program_is_told_the_world_of_now_and_orphans_end(world: World, tmp_path: Path) -> None:
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    file = _overuse_only(tmp_path)
    first = world.wrapper(file)
    assert first.ready.wait(20)
    chain = world.chain("overuse")
    for host in ("a", "b"):
        world.host(host, {"cpu": 99}).get(timeout=10)
    chain.until(lambda: len(chain.effects) == 2)
    assert first.stop() == 0
    world.host("a", None).get(timeout=10)
    world.host("c", {"cpu": 99}).get(timeout=10)
    world.catalogue = replace(world.catalogue, entity_lag_ms=0)  # so old that compaction may have been there
    assert world.wrapper(file).ready.wait(20)
    chain.until(lambda: len(chain.effects) == 4)
    assert sorted(chain.said()[2:]) == [("raise", "c1/host/c"), ("resolve", "c1/host/a")]
    assert sorted(chain.chain.fold.open) == ["c1/host/b", "c1/host/c"]


def test_a_start_reads_the_chain_on_from_the_newest_checkpoint(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wrapper.run.CHECKPOINT_RECORDS", 2)
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    file, chain = _overuse_only(tmp_path), world.chain("overuse")
    first = world.wrapper(file)
    assert first.ready.wait(20)
    for count, cpu in enumerate((99, 1, 99, 1, 99), 1):
        world.host("a", {"cpu": cpu})
        chain.until(lambda count=count: len(chain.effects) == count)  # type: ignore[misc]
    assert first.stop() == 0
    found = Checkpoints("overuse", 0)
    view = world.view("alert-checkpoints")
    view.until(lambda: len(view.messages) > 1)
    for message in view.messages:
        record = to_record(world.catalogue, message)
        assert isinstance(record, Record)
        found.take(record)
    assert found.chain(10**9).number >= 2
    assert world.wrapper(file).ready.wait(20)
    world.host("a", {"cpu": 1})
    chain.until(lambda: len(chain.effects) == 6)
    assert chain.said() == [("raise", "c1/host/a"), ("resolve", "c1/host/a")] * 3


BAD = {
    "exits": ("exits.sh", "#!/bin/sh\nprintf 'no memory left' >&2\nexit 1\n", "exit code 1"),
    "nonsense": ("nonsense.txt", "this is not a program\n", "Exec format error"),
}


def test_bad_programs_are_reported_and_the_others_go_on(world: World, tmp_path: Path) -> None:
    entries = [(name, program, text) for name, (program, text, _) in BAD.items()]
    file = alert_file(tmp_path, *entries, ("missing", "missing.py", ""), ("locked", "locked.py", "#!/bin/sh\n"))
    (tmp_path / "locked.py").chmod(0o644)
    with file.open("a") as more:
        more.write(_overuse_only(tmp_path / "..").read_text())
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    wrapper = world.wrapper(file, replace(FAST, handshake=3))
    assert wrapper.ready.wait(30)
    chain, reports = world.chain("overuse"), world.reports()
    world.host("a", {"cpu": 99})
    chain.until(lambda: len(chain.effects) == 1)

    def told(name: str) -> list[str]:
        return [r["text"] for kind in ("restarted", "failed") for r in reports.of(name, kind)]

    reports.until(lambda: all(told(n) for n in [*BAD, "missing", "locked"]))
    for name, (_, _, reason) in BAD.items():
        assert reason in told(name)[0], name
    assert "does not exist" in told("missing")[0]
    assert "not executable" in told("locked")[0]
    assert reports.of("exits", "restarted")[0]["stderr"] == "no memory left"
    world.host("a", {"cpu": 1})
    chain.until(lambda: len(chain.effects) == 2)


HANGING = """#!/bin/sh
trap '' TERM
while read -r line; do
  case $line in
    *'"type":"hello"'*) echo '{"type":"hello","v":1}' ;;
    *'"type":"config"'*'"pause"'*) exit 78 ;;
    *) echo '{"type":"done"}' ;;
  esac
done
while :; do sleep 0.1; done
"""


def test_exit_78_waits_for_a_config_and_a_program_that_ignores_its_end_is_killed(world: World, tmp_path: Path) -> None:
    world.config("c1", "hang", '"pause"')
    timing = replace(FAST, stop=0.3, terminate=0.3)
    wrapper = world.wrapper(alert_file(tmp_path, ("hang", "hang.sh", HANGING)), timing)
    assert wrapper.ready.wait(20)
    reports, chain = world.reports(), world.chain("hang")
    reports.until(lambda: any("exit code 78" in r["text"] for r in reports.of("hang", "stopped")))
    assert wrapper.numbers["hang"].state == "waiting"
    world.config("c1", "hang", '"fine"')
    reports.until(lambda: len(reports.of("hang", "started")) == 2)
    chain.until(lambda: chain.chain.accepted == 1)
    pid = int(reports.of("hang", "started")[-1]["pid"])
    assert wrapper.stop() == 0
    assert not alive(pid)


def test_a_program_that_never_gets_anywhere_is_reported_as_failed(world: World, tmp_path: Path) -> None:
    file = alert_file(tmp_path, ("exits", "exits.sh", "#!/bin/sh\nexit 3\n"))
    assert world.wrapper(file, replace(FAST, failed_restarts=3)).ready.wait(20)
    reports = world.reports()
    reports.until(lambda: bool(reports.of("exits", "failed")))
    assert len(reports.of("exits", "started")) == 3


LATE = """#!/usr/bin/env python3
import json, sys
lines = []
for line in sys.stdin:
    m = json.loads(line)
    if m["type"] == "hello":
        print(json.dumps({"type": "hello", "v": 1}), flush=True)
    elif m["type"] != "entity" or m.get("snapshot"):
        print(json.dumps({"type": "done"}), flush=True)
    else:
        print("got one", file=sys.stderr, flush=True)
        lines.append(m)
for m in lines:  # only at the end of its input
    print(json.dumps({"type": "notice", "key": m["id"], "config": "c1", "title": "late"}))
    print(json.dumps({"type": "done"}), flush=True)
"""


def test_what_a_program_says_while_it_is_stopped_is_committed(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "alert.late")
    world.config("c1", "late", "1")
    wrapper = world.wrapper(alert_file(tmp_path, ("late", "late.py", LATE)))
    assert wrapper.ready.wait(20)
    chain = world.chain("late")
    world.host("a", {})
    chain.until(lambda: "got one" in caplog.text)
    assert wrapper.stop() == 0
    chain.until(lambda: chain.said() == [("raise", "a")])
