"""Programs that behave in every way that they should not: each is told of by its name, the others go on, and what can
be said is said once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.wrapper_world import EXAMPLES, FAST, World, alert_file, alive

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

def done(line):
    if line["type"] == "entity" and not line.get("snapshot"):
        say(type="notice", key=line["id"], config=config, title="t", kind="event")
    say(type="done")

"""
NUL = r"""
for line in lines():
    print("\0\0")
    say(type="notice", key="k", config=config, title="a\0b")
    done(line)
"""
EARLY = """
say(type="done")
print("good morning")
for line in lines():
    done(line)
"""
ENDLESS = """
while True:
    print("y" * 1000)
"""
DEAF = """
say(type="hello", v=1)
time.sleep(1000)
"""
QUITS_EACH = """
for line in lines():
    done(line)
    if line["type"] == "entity" and not line.get("snapshot"):
        sys.exit(1)
"""
LEAVES = """
next(lines())
print(subprocess.Popen(["sleep", "1000"]).pid, file=sys.stderr, flush=True)
os._exit(0)
"""
STOPS = """
for line in lines():
    os.kill(os.getpid(), signal.SIGSTOP)
    done(line)
"""
CLOSES = """
next(lines())
os.close(1)
time.sleep(1000)
"""
INVALID = r"""
for line in lines():
    sys.stdout.buffer.write(b'{"type":"notice","key":"\xff"}\n{half')
    sys.stdout.flush()
    sys.stdout.buffer.write(b" a line\n")
    done(line)
"""
RUDE = {  # name -> the program, and what people are told of it
    "nul": (NUL, "rejected", "U+0000"),
    "early": (EARLY, "rejected", "not given yet"),
    "endless": (ENDLESS, "restarted", "no hello within 2 s"),
    "deaf": (DEAF, "restarted", "no done for 2 s"),
    "quits": ("", "restarted", "exit code 0"),
    "quits_each": (QUITS_EACH, "restarted", "exit code 1"),
    "quits_ready": (QUITS_EACH.replace("entity", "ready"), "restarted", "exit code 1"),
    "leaves": (LEAVES, "restarted", "exit code 0"),
    "stops": (STOPS, "restarted", "no done for 2 s"),
    "closes": (CLOSES, "restarted", "closed its stdout"),
    "invalid": (INVALID, "rejected", "can't decode byte 0xff"),
}
SPEAK = ("nul", "early", "quits_each", "invalid")
HOSTS = 5


@pytest.fixture
def world(kafka: str, namespace: str) -> Iterator[World]:
    world = World(kafka, namespace)
    yield world
    world.close()


def test_whatever_a_program_does_is_told_and_holds_up_nobody_else(world: World, tmp_path: Path) -> None:
    file = alert_file(tmp_path, *((name, f"{name}.py", HEAD + text) for name, (text, _, _) in RUDE.items()))
    with file.open("a") as more:
        more.write('[[alert]]\nname = "overuse"\nrun = ["python3", "overuse.py"]\nentities = ["host"]\n')
        more.write(f'cwd = "{EXAMPLES / "overuse"}"\n')
    for name in RUDE:
        world.config(f"c-{name}", name, "1")
    world.config("c1", "overuse", '{"field": "cpu", "high": 90}')
    timing = replace(FAST, handshake=2, stuck=2, silent=2, stop=0.3, terminate=0.3, failed_restarts=1000)
    wrapper = world.wrapper(file, timing)
    assert wrapper.ready.wait(60)
    for i in range(HOSTS):
        world.host(f"h{i}", {"cpu": 99}).get(timeout=10)
    healthy, reports = world.chain("overuse"), world.reports()
    healthy.until(lambda: len(healthy.effects) == HOSTS)
    reports.until(lambda: all(any(w in r["text"] for r in reports.of(n, kind)) for n, (_, kind, w) in RUDE.items()))
    for name in SPEAK:
        chain = world.chain(name)
        chain.until(lambda chain=chain: len(chain.effects) >= HOSTS)  # type: ignore[misc]
        assert sorted(chain.said()) == [("event", f"h{i}") for i in range(HOSTS)], name
    assert not [r.alert for r in reports.reports if r.kind == "poison"], "no line is to blame"
    left = [int(r["stderr"]) for r in reports.of("leaves", "restarted") if r["stderr"]]
    world.host("h0", {"cpu": 1}).get(timeout=10)
    healthy.until(lambda: len(healthy.effects) == HOSTS + 1)
    assert wrapper.stop() == 0
    assert left
    assert not any(alive(pid) for pid in left)
