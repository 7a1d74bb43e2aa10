"""The example alerts: what their scenarios say, and that whatever people type into a config or send as an entity never
stops one of them.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tidings.cli.alert import program_of
from wrapper.comparing import play
from wrapper.scenario import read

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SCENARIOS = sorted(EXAMPLES.glob("*/*.jsonl"))
PROGRAMS = {  # what they read of a metric and of an entity
    "overuse": ("overuse.py", ("field", "high", "low", "for_s"), ("name", "cpu")),
    "disk": ("disk_nearly_full.sh", ("percent",), ("name", "disks")),
    "balance": ("low_balance.mjs", ("low", "days"), ("name", "balance")),
    "certificate": ("certificate_expiring.sh", ("days",), ("name", "pem")),
    "unfinished": ("unfinished.go", ("grace_s",), ("name", "due_at", "done")),
}
ODD: list[Any] = [None, 5, "x", [], {}, True, 1e300, -1, {"/": 99}, [1, None, {"mount": "/"}, {"percent": "97"}]]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that has to be built."""
    out = tmp_path_factory.mktemp("built") / "unfinished"
    subprocess.run(["go", "build", "-o", out, "unfinished.go"], cwd=EXAMPLES / "unfinished", check=True)
    return out


def program(folder: str, request: pytest.FixtureRequest) -> Path:
    own = EXAMPLES / folder / PROGRAMS[folder][0]
    return request.getfixturevalue("built") if own.suffix == ".go" else own


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_an_example_says_what_its_scenario_expects_killed_or_not(path: Path, request: pytest.FixtureRequest) -> None:
    scenario = read(path.read_text(), path.parent.name)
    alert = program_of(str(program(path.parent.name, request)))
    named = {"name": scenario.alert, "entities": list(scenario.entities)}
    for kill_each in {False, path.parent.name != "certificate"}:  # where the scenario has kills of its own
        outcome = play(alert.model_copy(update=named), scenario, answer_s=60, kill_each=kill_each)
        assert (outcome.faults, bool(outcome.said)) == (0, True), outcome.text


def test_every_example_has_a_scenario() -> None:
    assert {p.parent.name for p in SCENARIOS} == set(PROGRAMS)
    assert set(PROGRAMS) == {p.name for p in EXAMPLES.iterdir() if p.is_dir()}


@pytest.mark.parametrize("folder", PROGRAMS)
def test_odd_input_never_stops_an_example(folder: str, request: pytest.FixtureRequest) -> None:
    _, fields, members = PROGRAMS[folder]
    metrics = [*ODD, *({name: odd} for name, odd in itertools.product(fields, ODD))]
    bodies = [{}, *({name: odd} for name, odd in itertools.product(members, ODD))]
    usable = {"field": "cpu", "high": 9, "percent": 9, "low": 9, "days": 9, "grace_s": 9}
    lines = [{"type": "config", "op": "set", "id": "c", "value": {"metric": m}} for m in [*metrics, usable]]
    lines += [{"type": "entity", "op": "set", "entity_type": "vm", "id": "v", "value": b} for b in bodies]
    lines += [{"type": "ready"}, {"type": "tick"}, {"type": "later words"}]
    hello = {"type": "hello", "v": [1], "resumed": False, "open": [], "state": None, "now": 0}
    told = [hello, *({"seq": i, "now": i * 1000} | line for i, line in enumerate(lines, 1))]
    text = "".join(json.dumps(line) + "\n" for line in told)
    own = [*program_of(str(program(folder, request))).run]
    result = subprocess.run(own, input=text, capture_output=True, text=True, timeout=60, check=True)
    said = [json.loads(line)["type"] for line in result.stdout.splitlines()]
    assert said.count("done") == len(lines)
    assert said[0] == "hello"
