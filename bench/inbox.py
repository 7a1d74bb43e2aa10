"""The store of a user with 100,000 notices: pages in every state, deep cursors, counts, and what a live inbox costs.

The rows are those that the fold writes, put there at once. Beside each figure stands a look-up by primary key, measured
in the same run on the same connection. TIDINGS_BENCH_DATABASE adds a database beside SQLite, which must be empty.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, insert, select, text

from bench.figures import HEAD, spread
from projections.notice import STATES
from projections.sql.schema import marks, notices, steps, tallies
from projections.sql.store import Store
from projections.sql.views import inboxes
from projections.sql.views import notices as views
from projections.sql.views.notices import Cursor

NOTICES, PAGE, SAMPLES = 100_000, 50, 300
# Shares of unread, read, snoozed; the rest is archived.
MIXES = {"mostly archived": (0.01, 0.02, 0.005), "mostly unread": (0.96, 0.02, 0.01), "mostly read": (0.01, 0.96, 0.01)}
OTHERS = 10_000  # notices of other people
BODY = '{"title":"cpu of web-1 is 95%","text":"for 5 minutes","metric":{"field":"cpu","high":90},"link":"/vm/7"}'


def main() -> None:
    """All mixes, one database after the other."""
    with tempfile.TemporaryDirectory(prefix="tidings-bench-") as folder:
        urls = {"SQLite": f"sqlite:///{Path(folder) / 'tidings.db'}"}
        if given := os.environ.get("TIDINGS_BENCH_DATABASE"):
            urls[given.partition(":")[0].partition("+")[0]] = given
        for name, url in urls.items():
            store = Store(url)
            store.prepare()
            for number, (mix, shares) in enumerate(MIXES.items()):
                fill(store, f"user-{number}", NOTICES, shares)
                measure(store, f"user-{number}", f"{name}, {mix}")
            live(store, "user-1")
            store.close()


def fill(store: Store, user: str, count: int, shares: tuple[float, float, float]) -> None:
    """A user's notices, and some of other people between them."""
    dice = random.Random(user)  # noqa: S311 - the same rows in every run
    rows, waits, unread = [], [], 0
    for i in range(count):
        place = dice.choices(range(4), (*shares, 1 - sum(shares)))[0]
        unread += place == 0
        rows.append(row(user, i * 7, place))
        waits.append(step(user, i * 7, place))
    others = [row(f"{user}-other-{i % 100}", i * 7 + 3, i % 4) for i in range(OTHERS)]
    with store.writing() as tx:
        for start in range(0, len(rows), 1_000):
            tx.execute(insert(notices), rows[start : start + 1_000])
            tx.execute(insert(steps), waits[start : start + 1_000])
        tx.execute(insert(notices), others)
        tx.execute(insert(tallies).values(user_id=user, unread=unread, unseen=unread))
        mark = {"partition": 0, "offset": 1, "at": 1}
        tx.execute(insert(marks), [{"user_id": user, "cmd": f"cmd-{i}", **mark} for i in range(100)])
    if store.url.startswith("postgresql"):
        with store.writing() as tx:
            tx.execute(text("ANALYZE"))


def row(user: str, offset: int, place: int) -> dict[str, Any]:
    """One notice: unread, read, snoozed or archived."""
    at = 1_764_000_000_000 + offset
    return {
        "user_id": user,
        "notice_id": f"{offset * 7_919 % 1_000_000_007:08x}-7c0d-5d53-9a52-3f3b5b0a2c11",
        "partition": 0,
        "raised_offset": offset,
        "raised_at": at,
        "changed_offset": offset + 1,
        "inbox": True,
        "kind": "condition",
        "alert": "overuse",
        "config_id": "c1",
        "key": f"c1/vm{offset % 500}",
        "entity_type": "vm",
        "entity_id": f"vm{offset % 500}",
        "severity": "warning",
        "forward": "",
        "body": BODY,
        "version_offset": -1,
        "version_index": -1,
        "seen_at": None if place == 0 else at,
        "read_at": at if place in (1, 3) else None,
        "archived_at": at if place == 3 else None,
        "snoozed_until": at if place == 2 else None,
        "hold": 0,
        "ended_at": None,
        "stopped": place in (1, 3),
    }


def step(user: str, offset: int, place: int) -> dict[str, Any]:
    """Its forward by mail: stopped or sent."""
    return {
        "user_id": user,
        "notice_id": row(user, offset, place)["notice_id"],
        "what": "forward",
        "step": "email",
        "partition": 0,
        "channel": "email",
        "kind": "recipient",
        "value": user,
        "number": 0,
        "due_at": 1_764_000_300_000 + offset,
        "state": "skipped" if place in (1, 3) else "delivered",
        "reason": "read" if place in (1, 3) else "unread",
        "asked_offset": None,
        "asked_at": None,
        "asked_preferences": "",
        "scope": "c1",
        "told": None if place in (1, 3) else 0,
        "told_at": None,
        "held_in": "",
    }


def measure(store: Store, user: str, title: str) -> None:
    """Each query as the gateway asks it: in a transaction of its own, with steps and deliveries."""
    dice = random.Random(7)  # noqa: S311 - the same questions in every run
    ids = [row(user, dice.randrange(NOTICES) * 7, 0)["notice_id"] for _ in range(SAMPLES)]
    one = select(notices.c.body).where(notices.c.user_id == user)
    print(f"{title}\n\n{HEAD}")
    print(spread("bare look-up by primary key", timed(store, lambda tx, i: tx.execute(
        one.where(notices.c.notice_id == ids[i])).scalar())))  # fmt: skip
    print(spread("counts", timed(store, lambda tx, _: views.counts(tx, user))))
    deep = [Cursor(dice.randrange(NOTICES) * 7, "f") for _ in range(SAMPLES)]
    for state in STATES:
        first: list[Cursor | None] = [None] * SAMPLES
        for question, before in ((f"first page of {PAGE}", first), ("deep cursor", deep)):
            print(spread(f"{question}: {state}", timed(store, partial(page, user, state, before))))
    cpu = timed(store, partial(page, user, "open", deep), time.thread_time)
    print(spread("deep cursor: open, CPU of this thread", cpu) + "\n")


def page(user: str, state: str, before: Sequence[Cursor | None], tx: Connection, i: int) -> None:
    """What a GET of /v1/notices asks the store."""
    shown = views.page(tx, user, state, before=before[i], limit=PAGE + 1, words=None)
    views.deliveries(tx, shown)
    views.counts(tx, user)


def timed(
    store: Store, query: Callable[[Connection, int], object], clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Milliseconds of each sample, after a few that warm up."""
    took = []
    for i in range(-10, SAMPLES):
        begun = clock()
        with store.reading() as tx:
            query(tx, max(i, 0))
        took.append((clock() - begun) * 1000)
    return took[10:]


def live(store: Store, user: str) -> None:
    """What the first subscription of a user's inbox costs a gateway."""
    begun = time.perf_counter()
    with store.reading() as tx:
        inboxes.load(tx, {user: 0})[user]
    took = time.perf_counter() - begun
    tracemalloc.start()
    with store.reading() as tx:
        kept = inboxes.load(tx, {user: 0})[user]
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"live inbox of {len(kept.box.notices)} notices: loaded in {took:.2f} s, {size / 1e6:.0f} MB\n")
