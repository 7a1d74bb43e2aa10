"""One round of chaos: a broker, a database, all roles, people, strangers and faults; then rest, and the judge."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select

from broker.embedded import EmbeddedBroker
from projections.sql.folds import folded_topics
from projections.sql.schema import metadata, notices
from tests.chaos import strangers
from tests.chaos.answers import World
from tests.chaos.databases import Database, Lite, Postgres
from tests.chaos.evidence import TABLES, Evidence, Said
from tests.chaos.faults import Faults
from tests.chaos.judge import judge
from tests.chaos.people import HUSHED, QUIET, People
from tests.chaos.shape import Shape
from tests.chaos.site import Site, running
from tidings.up_roles import free_ports


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen in one round, for the table: in the order of its lines."""

    seed: int
    database: str
    counts: dict[str, int]


async def play(
    folder: Path, kind: str, seed: int, shape: Shape, keep: Callable[[Evidence], None] = lambda _: None
) -> Outcome:
    """Play a round on `kind` (sqlite or postgresql); `keep` gets what was found. AssertionError if a rule is broken."""
    rng, began = random.Random(seed), time.monotonic()
    with EmbeddedBroker(folder / "kafka") as broker:
        database: Database = Postgres() if kind == "postgresql" else Lite(folder)
        try:
            async with running(folder, broker, database, ports=_ports(), patience_s=shape.settle_s) as site:
                found, counts = await _live(site, shape, rng)
                keep(found)
                counts |= judge(found)
        finally:
            database.close()
    return Outcome(seed, kind, counts | {"seconds": round(time.monotonic() - began)})


async def _live(site: Site, shape: Shape, rng: random.Random) -> tuple[Evidence, dict[str, int]]:
    people, faults = People(site, shape, rng), Faults(site, shape, random.Random(rng.random()))
    await people.settle_in()
    reading = asyncio.create_task(people.read_along())
    try:
        async with asyncio.TaskGroup() as together:
            together.create_task(people.live())
            together.create_task(faults.run())
            poison = together.create_task(strangers.write(site, shape, random.Random(rng.random())))
        await faults.heal()
        await site.until("stored", lambda: _stored(site, people.said), shape.settle_s)
        await people.read_the_rest()
        await site.until("at rest", site.unrest, shape.settle_s)
        assert await site.command("verify", shape.settle_s) == 0, f"`tidings verify` differs: {site.folder}/verify.log"
    finally:
        reading.cancel()
        ended = await asyncio.gather(reading, return_exceptions=True)
    if isinstance(ended[0], Exception):
        raise ended[0]
    return await evidence(site, people.said), dict(sorted(faults.seen.items())) | {"poison": poison.result()}


async def evidence(site: Site, said: Said) -> Evidence:
    """All that is left of a run."""
    senders = [role for role in site.roles.values() if role.command[0] == "sender"]
    return Evidence(
        log=await site.log(),
        rows={t: [dict(r._mapping) for r in site.rows(select(metadata.tables[t]))] for t in TABLES},
        folded=set(folded_topics(site.catalogue)),
        taken=dict(site.post.taken),
        sent_to=dict(site.post.to),
        sender_kills=sorted(k for role in senders for k in role.kills),
        sender_freezes=sorted(f for role in senders for f in role.freezes),
        said=said,
        world=World(hushed=(HUSHED,), quiet=(QUIET,)),
    )


async def _stored(site: Site, said: Said) -> str:
    stored = len(await asyncio.to_thread(site.rows, select(notices.c.notice_id).where(notices.c.kind != "digest")))
    missing = len(said.direct) + len(said.alert) - stored
    return f"{missing} notices are not stored" if missing > 0 else ""


def _ports() -> tuple[int, int]:
    one, other = free_ports(2)
    return one, other
