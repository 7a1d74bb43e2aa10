"""How fast a rebuild folds the log, beside a bare loop that decodes the same topics and inserts them into three tables.

The log holds what a day leaves: direct notices and requests to two, half of them read in time, the others due, decided,
requested and sent some thousand notices later. Each reader runs in a process of its own, in turns.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import resource
import sqlite3
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from bench.log import Log, log
from projections.box import Box
from projections.fan_out import Desk
from projections.fan_out import apply as fan_out
from projections.notices import apply
from projections.rebuild import rebuild
from projections.sql.store import Store
from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES, Catalogue
from topics.cluster import Cluster
from topics.events import (
    Decided,
    DeliveryRequested,
    DeliverySent,
    Due,
    Event,
    Lane,
    NoticeMarked,
    NoticeRaised,
    NoticeRequested,
    Record,
)
from topics.fetch import reading, to_item

RECORDS, PARTITIONS, USERS, TURNS = 1_000_000, 4, 2_000, 3
LATER = 3_000  # so many notices come between one and its Due: five minutes at ten a second
CHUNK = 50_000
TOPICS = (NOTICE_REQUESTS, NOTICES, DELIVERIES)
BATCH = 10_000


def main(records: int = RECORDS) -> None:
    """Print both rates, and what share of the bare loop's the rebuild reaches."""
    with log(PARTITIONS) as made:
        written = write(made, records)
        found: dict[str, list[tuple[float, float, float]]] = {"bare": [], "rebuild": []}
        for turn in range(TURNS):
            for who, figures in found.items():
                figures.append(one(made, who, made.folder / f"{who}-{turn}.db", written))
    print("| reader of the whole log | events | events/s | CPU µs an event | memory (MB) |\n|---|---|---|---|---|")
    for who, name in (("bare", "bare loop: decode, insert into three tables"), ("rebuild", "`tidings rebuild`")):
        rate, cpu, memory = (median(column) for column in zip(*found[who], strict=True))
        print(f"| {name} | {written:,} | {rate:,.0f} | {cpu * 1e6:.1f} | {memory:.0f} |")
    share = median(r for r, *_ in found["rebuild"]) / median(r for r, *_ in found["bare"])
    print(f"| **share of the bare loop** | | **{share:.0%}** | | |\n")


def write(made: Log, records: int) -> int:
    """Fill the log; how many records there are."""
    lines: dict[str, list[tuple[str, Event]]] = {t: [] for t in TOPICS}
    written = 0
    for topic, key, event in itertools.islice(history(), records):
        lines[topic].append((key, event))
        if len(lines[topic]) == CHUNK:
            written += made.write(topic, lines[topic])
            lines[topic].clear()
    return written + sum(made.write(t, rest) for t, rest in lines.items())


def history() -> Iterator[tuple[str, str, Event]]:
    """(topic, key, event) without end. The folds themselves say what follows from what."""
    box, desk, waiting = Box(), Desk(), deque[NoticeRaised]()
    for number in itertools.count():
        for topic, key, event in _said(desk, number):
            yield topic, key, event
            if isinstance(event, NoticeRaised):
                apply(box, _record(NOTICES, number, event))
                waiting.append(event)
        while len(waiting) > LATER:
            gone = waiting.popleft()
            yield from _later(box, number, gone)
            del box.notices[gone.user, gone.notice_id]


def _said(desk: Desk, number: int) -> Iterator[tuple[str, str, Event]]:
    users = (f"user-{number % USERS}", f"user-{(number * 7 + 1) % USERS}")
    if number % 2:
        yield NOTICES, users[0], _raised(number, users[0])
        return
    request = NoticeRequested(
        **_common(number, "request"),
        subject="billing",
        key=None,
        request_key=str(number),
        users=users,
        lanes=tuple(_lane(u) for u in users),
        forward="",
        severity="info",
        entity_type=None,
        entity_id=None,
        body=_body(number),
    )
    yield NOTICE_REQUESTS, f"billing/{number % 64}", request
    for out in fan_out(desk, _record(NOTICE_REQUESTS, number, request)):
        yield out.topic, out.key, out.event


def _later(box: Box, number: int, raised: NoticeRaised) -> Iterator[tuple[str, str, Event]]:
    about: dict[str, Any] = {"user": raised.user, "notice_id": raised.notice_id}
    if raised.occurred_at % 4 < 2:
        common = _common(number, f"mark {raised.notice_id}")
        mark: dict[str, Any] = {"mark": "read", "ids": (raised.notice_id,), "up_to": None, "until": None}
        yield NOTICES, raised.user, NoticeMarked(**common, user=raised.user, cmd=common["event_id"], **mark)
        return
    step: dict[str, Any] = about | {"what": "forward", "step": "email", "number": 0}
    due = Due(**_common(number, f"due {raised.notice_id}"), **step, due_at=0)
    apply(box, _record(NOTICES, number, due))
    yield NOTICES, raised.user, due
    common = _common(number, f"decided {raised.notice_id}")
    said = f'{{"address":"{raised.user}@example.test","name":"","deadline_at":{1 << 50}}}'.encode()
    decided = Decided(**common, **step, answer="deliver", reason="unread", until=None, body=said)
    yield NOTICES, raised.user, decided
    for out in apply(box, _record(NOTICES, number, decided))[0]:
        yield out.topic, out.key, out.event
        if isinstance(out.event, DeliveryRequested):
            sent = DeliverySent(
                **_common(number, f"sent {raised.notice_id}"),
                **about,
                delivery_id=out.event.delivery_id,
                attempt=1,
                body=b'{"answer":"250 OK"}',
            )
            yield DELIVERIES, raised.user, sent


def _raised(number: int, user: str) -> NoticeRaised:
    return NoticeRaised(
        **_common(number, "raised"),
        notice_id=f"notice-{number:029d}",
        user=user,
        inbox=True,
        kind="direct",
        alert=None,
        config_id=None,
        key=None,
        entity_type="host",
        entity_id=f"host-{number % 500}",
        severity="warning",
        lanes=(_lane(user),),
        forward="",
        body=_body(number),
    )


def _lane(user: str) -> Lane:
    return Lane("email", "email", "recipient", user, 0)


def _body(number: int) -> bytes:
    return b'{"title":"The disk of host-%d is full","text":"%s","link":"/host/%d"}' % (number, b"x" * 150, number)


def _common(number: int, what: str) -> dict[str, Any]:
    return {"event_id": f"{what} {number}".rjust(36, "-"), "producer": "bench", "occurred_at": number}


def _record(topic: str, number: int, event: Event) -> Record:
    return Record(topic, 0, number, number, "", event)


# ------------------------------------------------------------------ one reader in a process of its own
def one(made: Log, who: str, database: Path, records: int) -> tuple[float, float, float]:
    """(events a second, CPU seconds an event, memory in MB)."""
    arguments = [who, made.cluster.bootstrap, made.catalogue.prefix, str(made.catalogue.partitions), str(database)]
    done = subprocess.run([sys.executable, "-m", "bench.rebuild", *arguments], check=True, stdout=subprocess.PIPE)
    seconds, cpu, memory = json.loads(done.stdout)
    for file in database.parent.glob(f"{database.name}*"):
        file.unlink()
    return records / seconds, cpu / records, memory


async def rebuilt(cluster: Cluster, catalogue: Catalogue, database: str) -> None:
    """As `tidings rebuild` does it, the swap included."""
    store = Store(f"sqlite:///{database}")
    store.prepare()
    await rebuild(cluster, catalogue, store.url, lambda _progress: None)
    store.close()


async def bare(cluster: Cluster, catalogue: Catalogue, database: str) -> None:
    """Decode and insert; nothing is looked up, nothing is folded."""
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        for pragma in ("journal_mode=MEMORY", "synchronous=OFF", "cache_size=-131072"):
            db.execute(f"PRAGMA {pragma}")
        async with reading(cluster, catalogue) as reader:
            for topic in TOPICS:
                table = topic.replace("-", "_")
                db.execute(f"CREATE TABLE {table} (partition, at, event_id, user, notice_id, kind, body, offset)")
                ends = await reader.ends(reader.spots([topic]))
                await reader.seek(dict.fromkeys(ends, 0))
                left, rows = sum(ends.values()), list[tuple[Any, ...]]()
                while left:
                    for message in await reader.poll(500):
                        item = to_item(catalogue, message)
                        assert isinstance(item, Record)
                        rows.append(_row(item))
                    if len(rows) >= min(BATCH, left):
                        db.execute("BEGIN")
                        db.executemany(f"INSERT INTO {table} VALUES (?,?,?,?,?,?,?,?)", rows)  # noqa: S608 - our own name
                        db.execute("COMMIT")
                        left -= len(rows)
                        rows.clear()


def _row(item: Record) -> tuple[Any, ...]:
    e = item.event
    user, notice, body = getattr(e, "user", None), getattr(e, "notice_id", None), getattr(e, "body", None)
    return item.partition, item.timestamp, e and e.event_id, user, notice, type(e).__name__, body, item.offset


if __name__ == "__main__":
    who, bootstrap, prefix, partitions, database = sys.argv[1:]
    measure = {"bare": bare, "rebuild": rebuilt}[who]
    begun = time.monotonic()
    asyncio.run(measure(Cluster(bootstrap), Catalogue(("vm",), prefix, int(partitions)), database))
    took = time.monotonic() - begun
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    cpu, memory = sum(u.ru_utime + u.ru_stime for u in used), sum(u.ru_maxrss for u in used) / 1024
    print(json.dumps([took, cpu, memory]))
