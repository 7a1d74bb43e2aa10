"""`python -m bench live[:PART,…]`: what it costs to tell a thousand clients, and how soon they know, beside nginx with
nchan, centrifuge (Go), python-socketio, a loop of Starlette's `send_text`, and a loop of send() in C. Parts: fan_out,
inboxes, idle, filters, reconnect.

The server is pinned to one core, the client and whoever writes to another; the broker runs where there is room.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil

from bench.live.producer import SIZE
from bench.live.sides import (
    CENTRIFUGE,
    NCHAN,
    PEERS,
    SUBSCRIBE,
    TYPES,
    Side,
    centrifuge,
    gateway,
    nchan,
    python_peer,
)
from bench.live.tools import SERVER_CORE, Figures, Others, Programs, Talk, cpu_s, pinned, produce
from bench.log import Log, log
from bench.site import free_port
from topics.catalogue import NOTICES, entity_topic

CLIENTS, WARM_S, SECONDS, SETTLE_S = 1_000, 2.0, 6.0, 0.5
RATES = (50, 200, 500)
IDLE = (2_000, 10_000)
BEHIND = 100


def main(*parts: str) -> None:
    """Print the tables of these parts, or of all."""
    known: dict[str, Callable[[Programs, Log], None]] = {
        "fan_out": fan_out,
        "inboxes": inboxes,
        "idle": idle,
        "filters": filters,
        "reconnect": reconnect,
    }
    with log(1, TYPES) as made:
        programs = Programs(made.folder)
        for part in parts or known:
            print(f"### {part}\n")
            known[part](programs, made)
            print()


# ---- one channel
def fan_out(programs: Programs, made: Log) -> None:
    """One channel, at several rates, by all sides in turn."""
    print(
        f"| {CLIENTS:,} connections, {SIZE} bytes | messages/s | CPU s a million deliveries | of a C loop "
        "| p50, p99 (ms) | delivered | missing, twice, cut | client's CPU | other work |\n" + "|---" * 9 + "|"
    )
    for rate in RATES:
        floor = _loop(programs, rate)
        for running in _sides(programs, made):
            with running as side:
                _told(programs, side, rate, floor)


def _sides(programs: Programs, made: Log) -> Iterator[AbstractContextManager[Side]]:
    yield _ours(made)
    if CENTRIFUGE.exists():
        yield centrifuge(made)
    if NCHAN.exists():
        yield nchan(programs.folder)
    if PEERS.exists():
        yield python_peer(made, "socketio")
    yield python_peer(made, "starlette")


@contextmanager
def _ours(made: Log) -> Iterator[Side]:
    with gateway(made) as running:
        yield running.side()


def _told(programs: Programs, side: Side, rate: int, floor: float) -> None:
    warm, count = int(rate * WARM_S), int(rate * SECONDS)
    with programs.client(side.port, CLIENTS, side.talk, skip=warm) as client:
        writing = produce(side.where, side.topic, side.kind, rate=rate, count=warm, first=0)
        writing.wait()
        others, before = Others(client.pid, *side.pids, *_rest(client.pid, side.pids)), cpu_s(*side.pids)
        had = client.count()
        writing = produce(side.where, side.topic, side.kind, rate=rate, count=count, first=warm)
        writing.wait()
        time.sleep(SETTLE_S)
        cpu, told, share = cpu_s(*side.pids) - before, client.count() - had, others.share()
        found = client.figures()
    _row(side.name, rate, found, cpu / max(1, told) * 1e6, floor, count * CLIENTS, share)


def _loop(programs: Programs, rate: int) -> float:
    """The C loop's row; its CPU seconds for a million."""
    port = free_port()
    command = [str(programs.folder / "loop"), str(port), str(CLIENTS), str(rate), str(SECONDS), str(SIZE)]
    process = subprocess.Popen(pinned(SERVER_CORE, *command), stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    with programs.client(port, CLIENTS, Talk("/")) as client:
        others = Others(client.pid, *_rest(client.pid, ()))
        said = json.loads(process.stdout.read())
        share = others.share(said["cpu"])
        found = client.figures()
    process.kill()
    process.wait()
    million = float(said["cpu"] / said["sent"] * 1e6)
    _row("a loop of send() in C", rate, found, million, 0, said["sent"], share)
    return million


def _row(name: str, rate: int, found: Figures, million: float, floor: float, wanted: int, share: float) -> None:
    times = f"{million / floor:.2f} ×" if floor else "1"
    faults = f"{found.missing:,}, {found.repeated:,}, {found.closed:,}"
    there = f"{found.measured / wanted:.1%}"
    took = f"{found.p50:.1f}, {found.p99:.1f}" if found.measured else "later than the run"
    print(
        f"| {name} | {rate} | {million:.2f} | {times} | {took} | {there} "
        f"| {faults} | {found.cpu:.1f} s | {share:.0%} |",
        flush=True,
    )


def _rest(*known: object) -> list[int]:
    """The other processes of this run: the broker, and this one."""
    flat = {k for some in known for k in (some if isinstance(some, tuple) else (some,))}
    me = psutil.Process()
    return [me.pid, *(p.pid for p in me.children(recursive=True) if p.pid not in flat)]


# ---- inboxes
def inboxes(programs: Programs, made: Log) -> None:
    """An inbox for each client, 1,000 notices a second in all."""
    print("| inboxes | server | notices/s | CPU µs a notice | p50, p99, max (ms) | missing, twice, cut | other work |")
    print("|---" * 7 + "|")
    with gateway(made) as running:
        talk, topic = running.talk(SUBSCRIBE % "inbox", users=CLIENTS), made.catalogue.physical(NOTICES)
        kind = f"inbox:{CLIENTS}"
        _each(programs, Side("Tidings", (running.pid,), running.port, talk, made.cluster.bootstrap, topic, kind))
    if CENTRIFUGE.exists():
        with centrifuge(made, users=CLIENTS) as side:
            _each(programs, side)


def _each(programs: Programs, side: Side) -> None:
    rate = 1_000
    warm, count = int(rate * WARM_S), int(rate * SECONDS)
    with programs.client(side.port, CLIENTS, side.talk, stride=CLIENTS, skip=warm) as client:
        produce(side.where, side.topic, side.kind, rate=rate, count=warm).wait()
        others, before = Others(client.pid, *side.pids, *_rest(client.pid, side.pids)), cpu_s(*side.pids)
        produce(side.where, side.topic, side.kind, rate=rate, count=count, first=warm).wait()
        time.sleep(SETTLE_S)
        cpu, share = cpu_s(*side.pids) - before, others.share()
        found = client.figures()
    faults = f"{found.missing + count - found.measured:,}, {found.repeated:,}, {found.closed:,}"
    times = f"{found.p50:.1f}, {found.p99:.1f}, {found.max:.1f}"
    cost = cpu / found.measured * 1e6
    print(f"| {CLIENTS:,} | {side.name} | {rate:,} | {cost:.0f} | {times} | {faults} | {share:.0%} |", flush=True)


# ---- idle connections
def idle(programs: Programs, made: Log) -> None:
    """Connections that are subscribed, and to which nothing happens."""
    print(
        "| idle connections, subscribed | KB of memory for each | CPU while nothing happens | cut |\n|---|---|---|---|"
    )
    for count in IDLE:
        with gateway(made) as running:
            with programs.client(running.port, 50, running.talk(SUBSCRIBE % "entities/vm")):
                pass  # what the first clients load
            time.sleep(1)
            before = running.memory_kb()
            with programs.client(running.port, count, running.talk(SUBSCRIBE % "entities/vm")) as client:
                time.sleep(1)
                each, spent, begun = (running.memory_kb() - before) / count, cpu_s(running.pid), time.monotonic()
                time.sleep(8)
                share = (cpu_s(running.pid) - spent) / (time.monotonic() - begun)
                print(f"| {count:,} | {each:.1f} | {share:.1%} | {client.figures().closed} |", flush=True)


# ---- filters
def filters(programs: Programs, made: Log) -> None:
    """The same ten filters, one for each of ten channels, on each client; then on few clients."""
    rate, count = 200, 800
    print("| clients | filters on each | records/s | CPU µs a record: none matches | one in ten matches |")
    print("|---|---|---|---|---|")
    types = TYPES[1:]
    topic = made.catalogue.physical(entity_topic(""))
    for clients in (1, 100, CLIENTS):
        costs = []
        for wanted in (-1, 3):
            frames = [
                json.dumps(
                    {
                        "id": i,
                        "subscribe": {
                            "channel": f"entities/{name}",
                            "snapshot": False,
                            "filter": {"key": "group", "op": "eq", "val": str(wanted)},
                        },
                    },
                    separators=(",", ":"),
                )
                for i, name in enumerate(types)
            ]
            with (
                gateway(made) as running,
                programs.client(running.port, clients, running.talk(*frames), stride=0),
            ):
                before = cpu_s(running.pid)
                produce(made.cluster.bootstrap, topic, ",".join(types), rate=rate, count=count).wait()
                time.sleep(SETTLE_S)
                costs.append((cpu_s(running.pid) - before) / count * 1e6)
        print(f"| {clients:,} | {len(types)} | {rate} | {costs[0]:.0f} | {costs[1]:.0f} |", flush=True)


# ---- reconnect
def reconnect(programs: Programs, made: Log) -> None:
    """All clients vanish, BEHIND messages come, all are back at once and resume."""
    print("| clients | behind | all caught up after (s) | missing | twice | gateway's CPU (s) |\n" + "|---" * 6 + "|")
    with gateway(made) as running:
        side = running.side()
        resume = '{"id":1,"subscribe":{"channel":"entities/vm","since":"%p"}}'
        talk = running.talk(SUBSCRIBE % "entities/vm")
        with programs.client(running.port, CLIENTS, talk) as client:
            produce(side.where, side.topic, side.kind, rate=200, count=BEHIND).wait()
            time.sleep(SETTLE_S)
            client.tell(f"say {resume}")
            client.tell("drop")
            produce(side.where, side.topic, side.kind, rate=200, count=BEHIND, first=BEHIND).wait()
            time.sleep(SETTLE_S)
            before = cpu_s(running.pid)
            client.tell(f"back {2 * BEHIND - 1}")
            seconds = float(client.hear("caught"))
            cpu, found = cpu_s(running.pid) - before, client.figures()
    print(f"| {CLIENTS:,} | {BEHIND} | {seconds:.2f} | {found.missing} | {found.repeated} | {cpu:.2f} |")
