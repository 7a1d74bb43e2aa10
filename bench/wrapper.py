"""The wrapper and the pipe to a program: how soon a change is on its stdin, how many go through, how long a snapshot of
very many entities takes, and what the wrapper holds; beside a plain loop over the same pipe.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from bench.figures import HEAD, spread
from bench.log import Log, log
from bench.site import TIDINGS
from topics.catalogue import entity_topic
from topics.codec import encode
from topics.events import EntityChanged, Event
from topics.ids import new_id

ENTITIES, CHANGES = 100_000, 300_000
RATE, SECONDS = 500, 20

# Acknowledges every line; says in a file when it was told what, by the monotonic clock that all processes share.
PROGRAM = """
import json, sys, time
out, told = sys.stdout, open(sys.argv[1], "a", buffering=1)
count = 0
for line in sys.stdin.buffer:
    now = time.monotonic_ns()
    if b'"type":"entity"' in line[:40]:
        count += 1
        if b'"snapshot"' not in line[:120]:
            sent = json.loads(line)["value"].get("sent")
            if sent:
                print("late", now - sent, file=told)
            elif count % 1000 == 0 or b'"last"' in line:
                print("count", now, count, file=told)
    elif b'"type":"hello"' in line[:40]:
        print("hello", now, file=told)
        out.write('{"type":"hello","v":1}\\n')
        out.flush()
        continue
    elif b'"type":"ready"' in line[:40]:
        print("ready", now, file=told)
    out.write('{"type":"done"}\\n')
    out.flush()
"""
NAIVE = """
import json, sys
for line in sys.stdin:
    json.loads(line)
    print('{"type":"done"}', flush=True)
"""


def main() -> None:
    """Print the tables."""
    with log(4, ("host",)) as made:
        told = made.folder / "told.txt"
        (made.folder / "alert.py").write_text(PROGRAM)
        file = made.folder / "alerts.toml"
        run = json.dumps([sys.executable, "alert.py", str(told)])
        file.write_text(f'[[alert]]\nname = "bench"\nrun = {run}\nentities = ["host"]\n')
        made.write(entity_topic("host"), (_changed(i, {"n": i}) for i in range(ENTITIES)))
        print(f"| {ENTITIES:,} entities | seconds | CPU seconds | the wrapper holds (MB, PSS) |\n|---|---|---|---|")
        with _wrapper(made, file) as process:
            _snapshot(told, process, 1, "the log")
        with _wrapper(made, file) as process:
            _snapshot(told, process, 2, "its file")
            _through(made, told, process)
            late = _late(made, told)
        print(f"\n{HEAD}\n{spread(f'change sent → stdin, {RATE}/s', late)}")


def _snapshot(told: Path, process: subprocess.Popen[bytes], start: int, source: str) -> None:
    begun = time.monotonic_ns()
    hello, before = _until(told, "hello", start, process)[-1], _cpu(process.pid)
    ready = _until(told, "ready", start, process)[-1]
    fold, give = (int(hello[1]) - begun) / 1e9, (int(ready[1]) - int(hello[1])) / 1e9
    print(f"| the wrapper's start, its world from {source} | {fold:.1f} | {before:.1f} | {_held(process.pid):.0f} |")
    given, held = _cpu(process.pid) - before, _held(process.pid)
    print(f"| snapshot through the program, each line acknowledged | {give:.1f} | {given:.1f} | {held:.0f} |")


def _through(made: Log, told: Path, process: subprocess.Popen[bytes]) -> None:
    before, cpu = len(_lines(told, "count")), _cpu(process.pid)
    begun = time.monotonic_ns()
    last = {"last": True}
    changes = (_changed(i * 7919, {"n": i} if i < CHANGES - 1 else last) for i in range(CHANGES))  # all over the place
    made.write(entity_topic("host"), changes)
    wrote = time.monotonic_ns()
    counts = [(int(c[1]), int(c[2])) for c in _until(told, "count", before + CHANGES // 1000, process)[before:]]
    meanwhile, rate = _rate([c for c in counts if c[0] < wrote]), _rate([c for c in counts if c[0] >= wrote])
    used = (_cpu(process.pid) - cpu) / CHANGES * 1e6
    naive = _naive(CHANGES)
    held = _held(process.pid)
    print("\n| | changes/s | CPU µs each |\n|---|---|---|")
    print(f"| written to Kafka | {CHANGES / (wrote - begun) * 1e9:,.0f} | |")
    print(f"| through the wrapper to a trivial program, each line acknowledged | {rate:,.0f} | {used:.0f} |")
    print(f"| the same while the writer takes most of a core | {meanwhile:,.0f} | |")
    print(f"| a plain loop over a pipe, one JSON line a read, each acknowledged | {naive:,.0f} | |")
    print(f"\n{rate / naive:.2f} of the loop. The wrapper holds {held:.0f} MB (PSS).")


def _rate(counts: list[tuple[int, int]]) -> float:
    """A second, of what was counted at these times (ns)."""
    return (counts[-1][1] - counts[0][1]) / (counts[-1][0] - counts[0][0]) * 1e9


def _late(made: Log, told: Path) -> list[float]:
    asyncio.run(_send(made))
    late = _until(told, "late", RATE * SECONDS, None)
    return [int(line[1]) / 1e6 for line in late]


async def _send(made: Log) -> None:
    producer = AIOKafkaProducer(**made.cluster.for_aiokafka(), acks="all", linger_ms=0)
    await producer.start()
    begun = time.monotonic()
    for i in range(RATE * SECONDS):
        await asyncio.sleep(max(0.0, begun + i / RATE - time.monotonic()))
        key, event = _changed(i, {"sent": time.monotonic_ns()})
        await producer.send(made.catalogue.physical(entity_topic("host")), encode(event), key.encode())
    await producer.stop()


def _naive(count: int) -> float:
    """Lines a second of a parent that writes and a child that answers, both one line at a time but never waiting."""
    _, event = _changed(1, {"n": 1})
    assert isinstance(event, EntityChanged)
    line = b'{"type":"entity","value":' + (event.body or b"") + b"}\n"
    with subprocess.Popen([sys.executable, "-c", NAIVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin
        assert child.stdout
        begun = time.monotonic()
        if os.fork() == 0:
            for _ in range(count):
                child.stdin.write(line)
            child.stdin.flush()
            os._exit(0)
        for _ in range(count):
            child.stdout.readline()
        took = time.monotonic() - begun
        os.wait()
        child.kill()
    return count / took


def _changed(number: int, body: dict[str, Any]) -> tuple[str, Event]:
    key = f"host-{number % ENTITIES}"
    text = json.dumps(body | {"name": key, "text": "x" * 150}).encode()
    event = EntityChanged(
        event_id=new_id(),
        producer="bench",
        occurred_at=0,
        entity_type="host",
        entity_id=key,
        op="updated",
        body=text,
    )
    return key, event


@contextmanager
def _wrapper(made: Log, file: Path) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "TIDINGS_KAFKA": made.cluster.bootstrap,
        "TIDINGS_ENTITY_TYPES": "host",
        "TIDINGS_TOPIC_PREFIX": made.catalogue.prefix,
        "TIDINGS_PARTITIONS": "4",
        "TIDINGS_STATE_DIR": str(made.folder / "state"),
    }
    process = subprocess.Popen([TIDINGS, "wrapper", str(file)], env=os.environ | settings, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _until(told: Path, what: str, count: int, process: subprocess.Popen[bytes] | None) -> list[list[str]]:
    deadline = time.monotonic() + 120
    while len(found := _lines(told, what)) < count:
        assert time.monotonic() < deadline, f"only {len(found)} of {count} {what}"
        assert process is None or process.poll() is None, "the wrapper ended"
        time.sleep(0.1)
    return found


def _lines(told: Path, what: str) -> list[list[str]]:
    text = told.read_text() if told.exists() else ""
    lines: Iterable[list[str]] = (line.split() for line in text.splitlines(keepends=True) if line.endswith("\n"))
    return [line for line in lines if line[0] == what]


def _held(pid: int) -> float:
    """Proportional set size in MB."""
    return int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Pss:")[1].split()[0]) / 1024


def _cpu(pid: int) -> float:
    """Seconds of processor that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
