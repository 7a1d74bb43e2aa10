"""`python -m bench peer`: how many notices a second are accepted, stored and pushed, beside how many alerts Debian's
Alertmanager takes into its memory; what each takes for it, and what is left of it after a kill -9.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.peer.sides import USERS, Alertmanager, Tidings, alertmanager, cpu_s, kill, memory_mb, tidings
from bench.peer.tools import Load, Pushes, Tools, pushed, sent

SECONDS, WARM_S, KILLED_AFTER_S = 10.0, 3.0, 3.0
SHAPES = ((1, 64), (1, 256), (1, 512), (100, 16))  # notices in a POST, connections: each with one POST under way
STORED_S = 300.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One shape of load on one side. `stored_s`: from the first POST until all is in the rows; 0 where nothing is."""

    load: Load
    cpu_us: float
    memory: float
    stored_s: float = 0
    pushes: Pushes | None = None
    pushed_s: float = 0


def main() -> None:
    """Print the tables."""
    if shutil.which("prometheus-alertmanager") is None or shutil.which("cc") is None:
        print("Not run: it needs a C compiler and Debian's prometheus-alertmanager (`scripts/prerequisites peer`).\n")
        return
    print(
        "| what takes it | notices in a POST | connections | accepted/s | POST p50, p99 (ms) | stored/s | pushed/s | "
        "POST → push p50, p99 (ms) | CPU µs a notice | PSS (MB) |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    best: defaultdict[int, list[tuple[float, float]]] = defaultdict(list)  # stored/s of ours, accepted/s of theirs
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        tools = Tools(Path(folder))
        for batch, connections in SHAPES:
            with alertmanager(_new(folder)) as peer:
                theirs = _theirs(tools, peer, batch, connections)
            _row("Alertmanager", batch, connections, theirs)
            with tidings(_new(folder)) as running:
                ours = _ours(tools, running, batch, connections)
            _row("Tidings", batch, connections, ours)
            rates = ours.load.accepted / ours.stored_s, theirs.load.accepted / theirs.load.seconds
            best[batch].append(rates)
            print(
                f"| **ratio** | {batch} | {connections} | | | **{rates[0] / rates[1]:.2f}** of what it accepts | | | "
                f"{ours.cpu_us / theirs.cpu_us:.1f} | {ours.memory / theirs.memory:.2f} |"
            )
        for batch, rates_of in best.items():
            ours_best, theirs_best = map(max, zip(*rates_of, strict=True))
            print(f"| **each at its best** | {batch} | | | | **{ours_best / theirs_best:.2f}** | | | | |")
        print("\n| kill -9 of all processes under load | acknowledged | there after the next start |\n|---|---|---|")
        for name, start in (("Alertmanager", alertmanager), ("Tidings", tidings)):
            told, left = _killed(tools, _new(folder), start)
            print(f"| {name} | {told} | {left} |")
    print()


def _new(folder: str) -> Path:
    return Path(tempfile.mkdtemp(dir=folder))


def _theirs(tools: Tools, peer: Alertmanager, batch: int, connections: int) -> Figures:
    _send(tools, peer, batch, connections, WARM_S)
    before = cpu_s(peer.pids)
    load = _send(tools, peer, batch, connections, SECONDS)
    return Figures(load, (cpu_s(peer.pids) - before) / load.accepted * 1e6, memory_mb(peer.pids))


def _ours(tools: Tools, running: Tidings, batch: int, connections: int) -> Figures:
    at_first = running.stored()
    warm = _send(tools, running, batch, connections, WARM_S)
    _until(running, at_first + warm.accepted)
    with tools.listener(running.port, running.tokens()) as listener:
        before, stood, begun = cpu_s(running.pids), running.stored(), time.monotonic()
        load = _send(tools, running, batch, connections, SECONDS)
        _until(running, stood + load.accepted)
        stored_s = time.monotonic() - begun
        pushes = pushed(listener)
        cpu = cpu_s(running.pids) - before
    assert pushes.pushes == load.accepted, f"{load.accepted} accepted, {pushes.pushes} pushed"
    return Figures(
        load, cpu / load.accepted * 1e6, memory_mb(running.pids), stored_s, pushes, pushes.last / 1e9 - begun
    )


def _send(tools: Tools, side: Tidings | Alertmanager, batch: int, connections: int, seconds: float) -> Load:
    process = tools.load(
        side.name, side.port, side.token, connections=connections, seconds=seconds, batch=batch, users=USERS
    )
    load = sent(process)
    assert not load.refused, f"{load.refused} of {load.requests} requests were refused"
    return load


def _until(running: Tidings, records: int) -> None:
    deadline = time.monotonic() + STORED_S
    while running.stored() < records:
        assert time.monotonic() < deadline, f"not stored within {STORED_S:g} s"
        time.sleep(0.02)


def _killed(
    tools: Tools, folder: Path, start: Callable[[Path], AbstractContextManager[Tidings | Alertmanager]]
) -> tuple[int, int]:
    """How many were acknowledged before everything was killed under full load, and how many are there afterwards."""
    with start(folder) as side:
        process = tools.load(side.name, side.port, side.token, connections=64, seconds=60, batch=1, users=USERS)
        time.sleep(KILLED_AFTER_S)
        kill(side.pids)
        told = sent(process).accepted
    with start(folder) as side:
        deadline = time.monotonic() + STORED_S
        held = side.held()
        while side.name == "tidings" and held < told and time.monotonic() < deadline:
            time.sleep(0.2)
            held = side.held()
        return told, held


def _row(name: str, batch: int, connections: int, found: Figures) -> None:
    load, pushes = found.load, found.pushes
    stored = f"{load.accepted / found.stored_s:,.0f}" if found.stored_s else "never (in memory)"
    told = f"{pushes.pushes / found.pushed_s:,.0f} | {pushes.p50:.1f}, {pushes.p99:.1f}" if pushes else "| "
    posts = f"{load.accepted / load.seconds:,.0f} | {load.p50:.1f}, {load.p99:.1f}"
    print(
        f"| {name} | {batch} | {connections} | {posts} | {stored} | {told} | {found.cpu_us:.0f} | {found.memory:.0f} |"
    )
