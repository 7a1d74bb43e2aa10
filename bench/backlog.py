"""How fast a worker folds a backlog, beside a bare Faust agent that reads the same topic and only counts; and what two
workers on one PostgreSQL cost beside one.

Each runs in a process of its own, in turns; counted is from the first record to the last, without the start. CPU per
event is the figure that other load on the machine changes least.
"""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from statistics import median
from typing import Any

import faust
import sqlalchemy
import uvloop
from prometheus_client import REGISTRY

from bench.log import Log, log, log_at, raised
from bench.postgres import server
from streams.worker import WorkerSettings, run
from topics.catalogue import NOTICES

RECORDS, PARTITIONS, USERS, TURNS = 100_000, 4, 1_000, 3
LOOK_S = 0.01
QUIET_S, JOIN_S = 5.0, 30.0


def main() -> None:
    """Print the rates, and what share of the bare agent's the worker reaches."""
    with log(PARTITIONS) as made, server() as postgres:
        made.write(NOTICES, (raised(i, USERS, 3_600_000) for i in range(RECORDS)))
        found: dict[str, list[tuple[float, float]]] = {"faust": [], "worker": [], "one": [], "two": []}
        for turn in range(TURNS):
            for who in ("faust", "worker"):
                found[who].append(one(made, who, f"{who}-{turn}", f"sqlite:///{made.folder}/{turn}.db"))
            for who, processes in (("one", 1), ("two", 2)) if postgres else ():
                found[who].append(together(made, f"{who}-{turn}", database(f"{postgres}", f"{who}{turn}"), processes))
    print("| reader of a backlog | events/s | CPU µs an event |\n|---|---|---|")
    for who, name in (
        ("faust", "bare Faust agent, counts"),
        ("worker", "worker, folds into SQLite"),
        ("one", "worker, folds into PostgreSQL"),
        ("two", "two workers, one PostgreSQL"),
    ):
        if found[who]:
            print(f"| {name} | {middle(found, who, 0):,.0f} | {middle(found, who, 1) * 1e6:.0f} |")
    share = middle(found, "worker", 0) / middle(found, "faust", 0)
    cpu = middle(found, "faust", 1) / middle(found, "worker", 1)
    print(f"\nThe worker reaches {share:.0%} of the bare agent's rate ({cpu:.0%} by CPU time alone).")
    if postgres:
        more = middle(found, "two", 1) / middle(found, "one", 1)
        print(f"Two workers need {more:.2f} times the CPU per event of one.\n")


def middle(found: dict[str, list[tuple[float, float]]], who: str, which: int) -> float:
    """The median of the turns."""
    return median(figures[which] for figures in found[who])


def database(postgres: str, name: str) -> str:
    """The URL of a fresh database."""
    admin = sqlalchemy.create_engine(f"{postgres}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    admin.dispose()
    return f"{postgres}/{name}"


def one(made: Log, who: str, group: str, url: str) -> tuple[float, float]:
    """(events a second, CPU seconds an event) of one reader in a process of its own."""
    _, begun, ended, cpu = finished(started(made, who, group, url))
    return RECORDS / (ended - begun), cpu / RECORDS


def together(made: Log, group: str, url: str, processes: int) -> tuple[float, float]:
    """The same of several workers that share the partitions: each tells what it folded itself."""
    running = [started(made, "share", group, url) for _ in range(processes)]
    figures = [f for f in map(finished, running) if f[0]]
    count = sum(n for n, *_ in figures)
    took = max(ended for _, _, ended, _ in figures) - min(begun for _, begun, _, _ in figures)
    return count / took, sum(cpu for *_, cpu in figures) / count


def started(made: Log, who: str, group: str, url: str) -> subprocess.Popen[bytes]:
    """A reader in a process of its own."""
    where = [made.cluster.bootstrap, made.catalogue.prefix, str(made.catalogue.partitions)]
    arguments = [sys.executable, "-m", "bench.backlog", who, *where, group, url, str(RECORDS)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE)


def finished(process: subprocess.Popen[bytes]) -> tuple[int, float, float, float]:
    """What it says at its end: events, when it began and ended, CPU seconds."""
    said, _ = process.communicate()
    if process.returncode:
        message = f"a reader ended with {process.returncode}"
        raise RuntimeError(message)
    events, begun, ended, cpu = json.loads(said)
    return events, begun, ended, cpu


async def measured(count: Callable[[], float], wanted: int, quiet_s: float | None = None) -> list[float]:
    """Events, wall clock at the first and the last, CPU seconds between; ends after `wanted`, or when it is quiet."""
    started_at = time.time()
    while not count():
        if quiet_s is not None and time.time() - started_at > JOIN_S:
            return [0, started_at, started_at, 0.0]  # the others were done before this one had joined
        await asyncio.sleep(LOOK_S)
    begun, spent = time.time(), time.process_time()
    seen, ended, cpu = count(), begun, 0.0
    while count() < wanted and (quiet_s is None or time.time() - ended < quiet_s):
        await asyncio.sleep(LOOK_S)
        if count() > seen:
            seen, ended, cpu = count(), time.time(), time.process_time() - spent
    return [count(), begun, time.time() if count() >= wanted else ended, cpu]


async def worker(made: Log, group: str, url: str, records: int, quiet_s: float | None = None) -> list[float]:
    """The worker as `tidings worker` runs it, cycles looked for as seldom as there."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    stop = asyncio.Event()
    working = asyncio.create_task(run(WorkerSettings(made.cluster, made.catalogue, url, group), stop))

    def folded() -> float:
        return REGISTRY.get_sample_value("tidings_worker_records_folded_total", {"topic": NOTICES}) or 0

    counting = asyncio.create_task(measured(folded, records, quiet_s))
    await asyncio.wait({working, counting}, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await working
    return counting.result()


async def share(made: Log, group: str, url: str, records: int) -> list[float]:
    """One of several: it ends when nothing more comes."""
    return await worker(made, group, url, records, QUIET_S)


async def bare(made: Log, group: str, _url: str, records: int) -> list[float]:
    """An agent that decodes nothing and counts."""
    seen = 0
    app = faust.App(
        group,
        broker=f"kafka://{made.cluster.bootstrap}",
        store="memory://",
        datadir=str(made.folder / group),
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        loghandlers=[],
        consumer_auto_offset_reset="earliest",
    )

    @app.agent(app.topic(made.catalogue.physical(NOTICES), value_serializer="raw", key_serializer="raw"))
    async def agent(stream: Any) -> None:
        nonlocal seen
        async for _ in stream:
            seen += 1

    await app.start()
    found = await measured(lambda: seen, records)
    await app.stop()
    return found


READERS: dict[str, Callable[[Log, str, str, int], Coroutine[Any, Any, list[float]]]] = {
    "faust": bare,
    "worker": worker,
    "share": share,
}


def child() -> None:
    """A reader's own process."""
    who, bootstrap, prefix, partitions, group, url, records = sys.argv[1:]
    with log_at(bootstrap, prefix, int(partitions)) as made, suppress(KeyboardInterrupt):
        read = READERS[who](made, group, url, int(records))
        print(json.dumps(uvloop.run(read)))


if __name__ == "__main__":
    child()
