from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wrapper.alert_file import Alert
from wrapper.comparing import Outcome, play, updated
from wrapper.scenario import ScenarioError, read

# Says what it is told to: "say" in an entity is printed as it stands, before the line's `done`.
PARROT = """
import json, sys
for text in sys.stdin:
    line = json.loads(text)
    if line["type"] == "hello":
        print(json.dumps({"type": "hello", "v": 1, "tick_s": 60}), flush=True)
        continue
    if line["type"] == "tick" and line["now"] % 600_000 == 0:
        said = {"type": "notice", "key": str(line["now"]), "config": "c1", "title": "ten minutes", "kind": "event"}
        print(json.dumps(said))
    for said in (line.get("value") or {}).get("say", []):
        print(said if isinstance(said, str) else json.dumps(said))
    if (line.get("value") or {}).get("leave"):
        sys.exit(3)
    print(json.dumps({"type": "done"}), flush=True)
"""
METRIC = '{"b": 1.10, "a": 1, "a": 12345678901234567890}'
CONFIG = f'{{"config": "c1", "value": {{"metric": {METRIC}, "channel": {{"email": ["7"]}}}}}}\n'
RAISE = (
    '{"at": "1m", "entity": "vm/1", "value": {"say": [{"type": "notice", "key": "k", "config": "c1", "title": "t"}]}}\n'
)


COUNTS = """
import json, sys
count = 0
for text in sys.stdin:
    line = json.loads(text)
    if line["type"] == "hello":
        print(json.dumps({"type": "hello", "v": 1}), flush=True)
        count = line["state"] or 0
        continue
    if line["type"] == "entity" and not line.get("snapshot"):
        count += 1
        print(json.dumps({"type": "notice", "key": str(count), "config": "c1", "title": "t", "kind": "event"}))
    print(json.dumps({"type": "done", STATE}), flush=True)
END
"""


def played(text: str, program: str = PARROT, *, kill_each: bool = False) -> Outcome:
    alert = Alert(name="parrot", run=[sys.executable, "-c", program], entities=["vm"], cwd=Path.cwd())
    return play(alert, read(text, "parrot"), answer_s=30, kill_each=kill_each)


@pytest.mark.parametrize(
    ("lines", "faults"),
    [
        (RAISE + '{"expect": {"type": "notice", "key": "k", "severity": "warning"}}', 0),
        (RAISE + '{"expect": {"type": "notice", "key": "k", "severity": "error"}}', 1),
        (RAISE + '{"at": "1m", "expect": {"type": "notice", "key": "k"}}', 0),
        (RAISE + '{"at": "2m", "expect": {"type": "notice", "key": "k"}}', 1),
        (RAISE, 1),  # what nobody expected
        (RAISE + '{"at": "2m"}\n{"expect": {"type": "notice", "key": "k"}}', 2),  # said before, not then
        (RAISE + '{"expect": {"type": "notice", "key": "k"}}\n{"expect": {"type": "notice", "key": "k"}}', 1),
        (RAISE + '{"expect": {"type": "notice", "key": "k"}}\n{"restart": true}\n' + RAISE.replace("1m", "2m"), 2),
        (RAISE.replace("title", "titel"), 1),  # a line that is refused
        (RAISE.replace('{"type": "notice"', '"text", {"type": "notice"'), 2),  # stray text
        ('{"at": "10m", "expect": {"type": "notice", "title": "ten minutes", "kind": "event"}}', 0),
        ('{"at": "9m59s"}', 0),
        (RAISE + '{"expect": {"type": "notice"}}\n{"at": "2m", "entity": "vm/1", "value": {"leave": true}}', 1),
        ('{"config": "c2", "value": {"enabled": false}}\n' + RAISE.replace("c1", "c2"), 1),  # disabled is gone
    ],
)
def test_what_is_said_is_laid_beside_what_is_expected(lines: str, faults: int) -> None:
    outcome = played(CONFIG + lines)
    assert outcome.faults == faults, outcome.text


@pytest.mark.parametrize(
    ("metric", "faults"),
    [
        ('{"b": 1.10, "a": 1, "a": 12345678901234567890}', 0),  # white space may go
        ('{"b":1.1,"a":1,"a":12345678901234567890}', 1),
        ('{"a":12345678901234567890,"b":1.10}', 1),
    ],
)
def test_a_metric_is_compared_as_the_text_that_it_is(metric: str, faults: int) -> None:
    assert played(CONFIG + RAISE + f'{{"expect": {{"type": "notice", "metric": {metric}}}}}').faults == faults


@pytest.mark.parametrize("head", ["", '# first\n{"alert": "parrot"}\n'])
def test_what_was_said_is_written_where_something_else_is_expected(head: str) -> None:
    kept = '{"expect": {"type": "notice", "key": "k"}}\n'
    text = (
        head
        + CONFIG
        + """{"expect": {"type": "error", "text": "never"}}
# it gets warm
"""
        + RAISE
        + kept
        + """
{"at": "2m", "entity": "vm/1", "value": {"say": [{"type": "resolve", "key": "k"}]}}
{"at": "30m"}
{"expect": {"type": "notice", "key": "wrong"}}
"""
    )
    scenario = read(text, "parrot")
    mended = updated(text, scenario, played(text).heard)
    assert played(mended).faults == 0
    assert mended.startswith(head + CONFIG + "# it gets warm\n" + RAISE + kept + "\n")
    assert mended.count('"expect"') == 5  # and one at 10, 20 and 30 minutes
    assert updated(mended, read(mended, "parrot"), played(mended).heard) == mended
    assert played(mended).whole
    assert not played(mended.replace('{"say": [{"type": "resolve"', '{"leave": 1, "say": [{"type": "resolve"')).whole


def test_an_earlier_run_is_gone_on_from() -> None:
    head = '{"alert": "parrot", "open": {"k": {"config": "c1", "entity": "vm/1"}}, "state": {"n": 1.0}}\n'
    snapshot = '{"entity": "vm/1", "value": {}}\n'
    again = played(head + CONFIG + snapshot + RAISE)
    assert again.faults == 1
    assert '"detail":"raise of an open key"' in again.text
    gone = '{"at": "1m", "entity": "vm/1", "value": null}\n{"expect": {"type": "resolve", "key": "k"}}'
    assert played(head + CONFIG + snapshot + gone).faults == 0


@pytest.mark.parametrize(
    ("state", "killed", "told"), [('"state": count', True, ""), ("", False, ""), ("", True, "event said before")]
)
def test_a_program_that_keeps_no_state_is_found_out_by_kills(state: str, killed: bool, told: str) -> None:
    twice = CONFIG + "".join(
        f'{{"at": "{n}m", "entity": "vm/1", "value": {{}}}}\n{{"expect": {{"type": "notice", "key": "{n}"}}}}\n'
        for n in (1, 2)
    )
    outcome = played(twice, COUNTS.replace("STATE", state).replace("END", ""), kill_each=killed)
    assert (outcome.faults > 0, told in outcome.text) == (bool(told), True), outcome.text


@pytest.mark.parametrize(
    ("end", "told"),
    [
        ('print(json.dumps({"type": "notice", "key": "k", "config": "c1", "title": "late"}))', "has no done"),
        ("sys.exit(3)", "exit code 3 at the end of its input"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "-15 at the end"),
    ],
)
def test_the_end_of_its_input_is_played_too(end: str, told: str) -> None:
    outcome = played(CONFIG, COUNTS.replace("STATE", "").replace("END", end))
    assert outcome.faults == 1
    assert told in outcome.text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"entity": "vm", "value": {}}', "TYPE/ID"),
        ('{"config": "c1"}', "`value` goes with"),
        ('{"config": "c1", "recipient": "r", "value": {}}', "can't stand in one line"),
        ('{"at": "1m"}\n{"at": "30s"}', "line 2: `at` lies before"),
        ('{"expect": {"type": "noise"}}', "expect.type"),
        ('{"entity": "vm/1", "value": 5}', "value"),
        ('{"entities": ["vm"]}', "entities"),
        ("nonsense", "line 1"),
        ('{"at": "1m"}\n{"alert": "late"}', "first line"),
    ],
)
def test_a_scenario_that_is_none_names_its_line(line: str, words: str) -> None:
    with pytest.raises(ScenarioError, match="line") as refused:
        read(line, "parrot")
    assert words in str(refused.value)
