"""Programs that behave in every way that they should not: each is told of in the words of docs/alerts.md, to who
runs it and to its author; the others go on, and what can be said is said once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from tests.integration.command_line import ROOT
from tests.integration.wrapper_world import EXAMPLES, FAST, World, alert_file, alive
from wrapper.alert_file import Alert
from wrapper.comparing import play
from wrapper.scenario import read

HEAD = """#!/usr/bin/env python3
import json, os, signal, subprocess, sys, time
config = "c-" + os.path.basename(sys.argv[0])[:-3]

def say(**message):
    print(json.dumps(message), flush=True)

def lines():
    for text in sys.stdin:
        line = json.loads(text)
        if line["type"] == "hello":
            say(type="hello", v=1)
        else:
            yield line

def is_news(line):
    return line["type"] == "entity" and not line.get("snapshot")

def done(line):
    if is_news(line):
        say(type="notice", key=line["id"], config=config, title="t", kind="event")
    say(type="done")

"""
EACH = """
for line in lines():
    if is_news(line):
        pass
    done(line)
"""
MESSAGE = 'say(type="notice", key="k", '
SPEAKING = {  # what is wrong with each, in the words of the guide, and what it says before its good notice
    "text that is no message": r'print("good morning"); sys.stdout.buffer.write(os.urandom(9_999) + b"\n")',
    "half a line, or what is no JSON": r'print("{half", end="", flush=True); print(" a line")',
    "what is not UTF-8": r'sys.stdout.buffer.write(b"{\xff}\n")',
    "U+0000 in a title": MESSAGE + r'config=config, title="a\0b")',
    "a line of over 1 MiB": 'print("{" + "x" * 10_000_000)',
    "a config that does not exist": MESSAGE + 'config="nobody", title="t")',
    "`to` without anybody whom the config names": MESSAGE
    + 'config=config, title="t", to={"email": ["u9"], "fax": ["u1"]})',
    "an entity that does not exist": MESSAGE + 'config=config, title="t", entity={"type": "host", "id": "none"})',
}
SILENT = {
    "a message before its `hello`": 'say(type="done")' + EACH,
    "endless text": 'while True: print("y" * 1000)',
    "endless messages without `done`": f'next(lines())\nwhile True: {MESSAGE}config="nobody", title="t")',
    "nothing, ever": "time.sleep(1000)",
    "nothing after `hello`, and reads nothing": 'say(type="hello", v=1); time.sleep(1000)',
    "its end, at once": "",
    "its end after each line": EACH.replace("done(line)", "done(line); sys.exit(1) if is_news(line) else None"),
    "its end at `ready`": 'for line in lines():\n    done(line)\n    if line["type"] == "ready": sys.exit(1)',
    "its end, while what it started lives on": (
        'next(lines())\nprint(subprocess.Popen(["sleep", "1000"]).pid, file=sys.stderr, flush=True)\nos._exit(0)'
    ),
    "the end of its stdout alone": "next(lines()); os.close(1); time.sleep(1000)",
    "nothing, after SIGSTOP": "for line in lines(): os.kill(os.getpid(), signal.SIGSTOP)",
    "nothing at the end of its input and at SIGTERM": (
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\nfor line in lines(): done(line)\ntime.sleep(1000)"
    ),
}
RUDE = {does: EACH.replace("pass", said) for does, said in SPEAKING.items()} | SILENT
HOSTS = 5
SCENARIO = """
{"config": "c-NAME", "value": {"channel": {"email": ["u1"]}}}
{"at": "1s", "entity": "host/h0", "value": {}}
{"expect": {"type": "notice", "key": "h0"}}
"""


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


def _documented() -> list[tuple[str, list[str], list[str]]]:
    """What a program does, and the quotes of what its operator and its author are told, as docs/alerts.md has it."""
    text = (
        (ROOT / "docs" / "alerts.md")
        .read_text()
        .partition("## Programs that misbehave")[2]
        .partition("What others do")[0]
    )
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    return [(row[0].strip(), re.findall(r"“(.*?)”", row[1]), re.findall(r"“(.*?)”", row[2])) for row in rows]


def _any_time(text: str) -> str:
    """Limits are shorter here than in the guide."""
    return re.sub(r"\d+ s", "N s", text)


def _programs(directory: Path) -> dict[str, str]:
    """The names of the programs, in a file of their own, by what they do."""
    names = {does: f"rude{i}" for i, does in enumerate(RUDE)}
    file = alert_file(directory, *((names[does], f"{names[does]}.py", HEAD + text) for does, text in RUDE.items()))
    with file.open("a") as more:
        more.write('[[alert]]\nname = "overuse"\nrun = ["python3", "overuse.py"]\nentities = ["host"]\n')
        more.write(f'cwd = "{EXAMPLES / "overuse"}"\n')
    return names


def _played(directory: Path, name: str, answer_s: float) -> str:
    alert = Alert(name=name, run=[f"./{name}.py"], entities=["host"], cwd=directory)
    return play(alert, read(SCENARIO.replace("NAME", name), name), answer_s=answer_s).text


def test_whatever_a_program_does_is_told_and_holds_up_nobody_else(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    names = _programs(tmp_path)
    for name in names.values():
        world.config(f"c-{name}", name, "1")
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    timing = replace(
        FAST, handshake=3, stuck=3, silent=3, stop=0.3, terminate=0.3, failed_restarts=1000, restart_most=2
    )
    wrapper = world.wrapper(tmp_path / "alerts.toml", timing)
    assert wrapper.ready.wait(60)
    for i in range(HOSTS):
        world.host(f"h{i}", {"cpu": 99}).get(timeout=10)
    healthy, reports = world.chain("overuse"), world.reports()
    healthy.until(lambda: len(healthy.effects) == HOSTS)
    for does in SPEAKING:
        chain = world.chain(names[does])
        chain.until(lambda chain=chain: len([e for e in chain.effects if e.op == "event"]) >= HOSTS)  # type: ignore[misc]
        assert sorted(e.key for e in chain.effects if e.op == "event") == [f"h{i}" for i in range(HOSTS)], does

    told = [(does, quotes) for does, quotes, _ in _documented()]

    def missing() -> list[str]:
        words = {
            n: _any_time("\n".join(r.body.decode() for r in reports.reports if r.alert == n)) for n in names.values()
        }
        return [q for does, quotes in told for q in quotes if _any_time(q) not in words[names[does]] + caplog.text]

    reports.until(lambda: missing() in ([], ["still running after the end of its input"]), 60)
    assert not [r.alert for r in reports.reports if r.kind == "poison"], "no line is to blame"
    leaves = names["its end, while what it started lives on"]
    left = [int(r["stderr"]) for r in reports.of(leaves, "restarted") if r["stderr"]]
    world.host("h0", {"cpu": 1}).get(timeout=10)
    healthy.until(lambda: len(healthy.effects) == HOSTS + 1)
    assert wrapper.stop() == 0
    assert missing() == []
    assert left
    assert not any(alive(pid) for pid in left)


def test_its_author_is_told_by_the_words_of_the_guide(tmp_path: Path) -> None:
    names, documented = _programs(tmp_path), _documented()
    assert [does for does, *_ in documented] == list(RUDE)
    with ThreadPoolExecutor(len(names)) as pool:
        times = [3 if "nothing" in does else 30 for does in names]
        played = pool.map(partial(_played, tmp_path), names.values(), times)
        texts = {does: _any_time(text.replace('\\"', '"')) for does, text in zip(names, played, strict=True)}
    for does, _, author in documented:
        assert author, does
        assert all(_any_time(quote) in texts[does] for quote in author), (does, texts[does])
