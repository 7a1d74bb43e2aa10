"""The example alerts by themselves: whatever people type into a config or send as an entity, every line gets its
`done`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
OVERUSE, DISK = EXAMPLES / "overuse" / "overuse.py", EXAMPLES / "disk" / "disk_nearly_full.sh"
ODD_METRICS: list[Any] = [
    None,
    5,
    "x",
    [],
    {},
    {"field": []},
    {"field": "cpu", "high": "9"},
    {"percent": "90"},
    {"percent": None},
]
ODD_BODIES: list[dict[str, Any]] = [
    {},
    {"cpu": "95"},
    {"cpu": None},
    {"cpu": True},
    {"disks": 5},
    {"disks": {"/": 99}},
    {"disks": [1, None, {"mount": "/"}, {"percent": "97"}]},
]


def _talk(program: Path, *lines: dict[str, Any], **hello: Any) -> list[dict[str, Any]]:
    """What the program answers to these lines after `hello`; numbered and timed here."""
    first = {"type": "hello", "v": [1], "resumed": False, "open": [], "state": None, "now": 0} | hello
    told = [first, *({"seq": i, "now": i * 1000} | line for i, line in enumerate(lines, 1))]
    text = "".join(json.dumps(line) + "\n" for line in told)
    result = subprocess.run([str(program)], input=text, capture_output=True, text=True, timeout=30, check=True)
    return [json.loads(line) for line in result.stdout.splitlines()]


def _config(metric: Any) -> dict[str, Any]:
    return {"type": "config", "op": "set", "id": "c", "value": {"metric": metric}}


def _host(**body: Any) -> dict[str, Any]:
    return {"type": "entity", "op": "set", "entity_type": "host", "id": "h", "value": body}


READY, TICK = {"type": "ready"}, {"type": "tick"}


@pytest.mark.parametrize("program", [OVERUSE, DISK])
def test_odd_input_never_stops_an_example(program: Path) -> None:
    lines = [line for metric in ODD_METRICS for line in (_config(metric), *(_host(**b) for b in ODD_BODIES))]
    answers = _talk(program, READY, *lines)
    assert sum(a["type"] == "done" for a in answers) == len(lines) + 1


def test_overuse_waits_for_s_and_tells_the_author_of_a_bad_metric() -> None:
    metric = {"field": "cpu", "high": 90, "low": 70, "for_s": 2}
    answers = _talk(
        OVERUSE, _config({}), _config(metric), READY, _host(cpu=95), TICK, TICK, _host(cpu=80), _host(cpu=1)
    )
    said = [(a["type"], a.get("key")) for a in answers if a["type"] not in ("done", "hello")]
    assert said == [("error", None), ("notice", "c/host/h"), ("resolve", "c/host/h")]


def test_overuse_goes_on_from_its_state_after_a_restart() -> None:
    metric = {"field": "cpu", "high": 90, "for_s": 5}
    snapshot = [_config(metric) | {"snapshot": True}, _host(cpu=95) | {"snapshot": True}]
    answers = _talk(OVERUSE, *snapshot, READY, TICK, resumed=True, state={"c/host/h": -1000})
    assert [a["type"] for a in answers] == ["hello", "done", "done", "done", "notice", "done"]


def test_the_disk_example_names_the_fullest_disk_and_resolves_when_all_are_below() -> None:
    full = [{"mount": "/", "percent": 91}, {"mount": "/srv", "percent": 99.5}]
    answers = _talk(DISK, READY, _config({"percent": 90}), _host(disks=full), _host(disks=full), _host(disks=full[:0]))
    said = [a for a in answers if a["type"] not in ("done", "hello")]
    assert [(a["type"], a["key"]) for a in said] == [("notice", "c/h"), ("resolve", "c/h")]
    assert (said[0]["title"], said[0]["severity"]) == ("Disk /srv of h is 99.5% full", "error")
