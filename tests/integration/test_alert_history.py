"""`tidings alert record` and `replay` on a real log: what was recorded passes as a scenario, what is replayed is what
was said, wherever it begins; and a program that differs is shown beside it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.integration.wrapper_world import EXAMPLES, World
from tidings.cli.main import cli
from tidings.cli.times import shown

FILE = '[[alert]]\nname = "overuse"\nrun = ["python3", "overuse.py"]\nentities = ["host"]\ncwd = "CWD"\n'
AT_ONCE, LATER = '{"field": "cpu", "high": HIGH, "low": 70}', '{"field": "cpu", "high": 90, "low": 70, "for_s": 1}'


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


ODD = (
    (("record", "FILE", "--since", "1h", "--entity", "host"), "--entity names a type and an id"),
    (("record", "FILE", "--since", "soon"), "'soon' is no time"),
    (("record", "FILE", "--since", "1m", "--until", "1h"), "--until lies before --since"),
    (("replay", "FILE", "--since", "1h", "--watch", "fridge"), "there is no entity type 'fridge'"),
    (("replay", "FILE", "--since", "1h", "--name", "nobody"), "was no config with the name 'nobody'"),
    (("replay", "FILE:nobody", "--since", "1h"), "there are 0 such alerts"),
    (("replay", "missing.py", "--since", "1h", "--name", "overuse"), "'missing.py' does not exist"),
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def history(world: World, file: Path) -> tuple[list[int], list[tuple[str, str]]]:
    """Two runs of the example; the times at which a history may begin, and what was said in all."""
    times = [now_ms()]
    world.config("c1", "overuse", AT_ONCE.replace("HIGH", "90"))
    world.host("a", {"cpu": 50}).get(timeout=10)
    world.host("b", {"cpu": 99}).get(timeout=10)
    first, chain = world.wrapper(file), world.chain("overuse")
    assert first.ready.wait(30)
    chain.until(lambda: chain.said() == [("raise", "c1/host/b")])  # the world at its start
    world.host("a", {"cpu": 85}).get(timeout=10)
    world.config("c1", "overuse", AT_ONCE.replace("HIGH", "80"))
    chain.until(lambda: chain.said()[1:] == [("raise", "c1/host/a")])
    world.host("b", None).get(timeout=10)
    world.config("c2", "overuse", LATER)
    world.config("c3", "another", LATER)
    world.host("c", {"cpu": 95}).get(timeout=10)
    chain.until(lambda: len(chain.effects) == 5)  # the last of them at a tick
    assert first.stop() == 0
    times.append(now_ms())
    world.host("a", {"cpu": 10}).get(timeout=10)
    second = world.wrapper(file)
    assert second.ready.wait(30)
    chain.until(lambda: len(chain.effects) == 6)
    world.delete_config("c2", "overuse")
    world.delete_config("c3", "another")
    chain.until(lambda: len(chain.effects) == 7)
    assert second.stop() == 0
    assert sorted(chain.said()[2:]) == [
        ("raise", "c1/host/c"), ("raise", "c2/host/c"),
        ("resolve", "c1/host/a"), ("resolve", "c1/host/b"), ("resolve", "c2/host/c"),
    ]  # fmt: skip
    return times, chain.said()


def test_what_really_happened_is_a_scenario_and_can_be_replayed(world: World, tmp_path: Path) -> None:
    file = tmp_path / "alerts.toml"
    file.write_text(FILE.replace("CWD", str(EXAMPLES / "overuse")))
    times, said = history(world, file)
    runner = CliRunner(env={"TIDINGS_KAFKA": world.cluster.bootstrap, "TIDINGS_ENTITY_TYPES": "host",
                            "TIDINGS_TOPIC_PREFIX": world.catalogue.prefix})  # fmt: skip

    def alert(*words: str) -> Result:
        return runner.invoke(cli, ["alert", *words])

    scenario = tmp_path / "recorded.jsonl"
    for since, expected in ((times[0], said), (times[1], said[5:])):
        recorded = alert("record", str(file), "--since", shown(since))
        assert not recorded.return_value, recorded.output
        scenario.write_text(recorded.stdout)
        tested = alert("test", str(file), str(scenario), "--kill-each")
        assert not tested.return_value, recorded.stdout + tested.output
        replayed = alert("replay", str(file), "--since", shown(since))
        assert not replayed.return_value, replayed.output
        told = [json.loads(line[2:].partition(" ")[2]) for line in replayed.stdout.splitlines()]
        assert {line[0] for line in replayed.stdout.splitlines()} == {" "}
        assert [("raise" if t["type"] == "notice" else "resolve", t["key"]) for t in told] == expected

    eager = tmp_path / "eager.py"
    eager.write_text((EXAMPLES / "overuse" / "overuse.py").read_text().replace("value > high", "value > high - 10"))
    words = (str(eager), "--name", "overuse", "--watch", "host", "--since", shown(times[0]))
    differs = [line for line in alert("replay", *words).stdout.splitlines() if line[0] != " "]
    assert [(line[0], "c1/host/a" in line) for line in differs[:2]] == [("+", True), ("-", True)], differs  # sooner
    alone = [line for line in alert("replay", *words, "--entity", "host/b").stdout.splitlines() if '"notice"' in line]
    assert [line[0] for line in alone] == [" "]
    for odd, wrong in ODD:
        answer = alert(*(word.replace("FILE", str(file)) for word in odd))
        assert wrong in answer.output + str(answer.exception), odd
        assert answer.exit_code != 0, odd
