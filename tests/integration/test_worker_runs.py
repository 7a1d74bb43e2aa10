"""What is private in the pinned Faust and used: runs of records instead of records, and how they are acknowledged.

And what becomes of large amounts: a backlog in every partition at the start, a request to many under a kill.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import func, select

from projections.sql.schema import entities, notices, positions
from tests.integration.worker_site import Site, entity, request
from topics.catalogue import NOTICE_REQUESTS, NOTICES, Catalogue, entity_topic
from topics.events import NoticeRaised
from topics.ids import direct_notice_id
from topics.produce import Producer

VM = entity_topic("vm")
USERS = tuple(f"user-{i}" for i in range(5_000))


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(kafka, namespace, tmp_path).open() as made:
        yield made


async def write(site: Site, count: int) -> None:
    """So many entities, each once."""
    await asyncio.gather(*[await site.producer.enqueue(VM, f"v{i}", entity(f"v{i}")) for i in range(count)])


async def test_a_backlog_in_all_partitions_at_the_start_holds_up_no_other_topic(
    kafka: str, namespace: str, tmp_path: Path
) -> None:
    site = Site(kafka, namespace, tmp_path)
    site.catalogue = Catalogue(("vm",), prefix=namespace, partitions=8)
    site.producer = Producer(site.cluster, site.catalogue, "test")
    async with site.open():
        await write(site, 24_000)
        async with site.working():
            await site.until(select(func.count()).select_from(entities), lambda r: r[0][0] == 24_000)
            await site.settled()


async def test_what_is_folded_is_acknowledged_to_the_group(site: Site) -> None:
    await write(site, 2_500)
    settings = site.settings()
    async with site.working():
        await site.settled()
    at = {(r.topic, r.partition): r.next for r in site.rows(select(positions).where(positions.c.topic == VM))}
    watcher = AIOKafkaConsumer(**site.cluster.for_aiokafka(), group_id=settings.group, enable_auto_commit=False)
    await watcher.start()
    try:
        found = {n: await watcher.committed(TopicPartition(site.catalogue.physical(t), n)) for t, n in at}
    finally:
        await watcher.stop()
    assert found == {n: offset for (_, n), offset in at.items()}


async def test_a_request_to_thousands_survives_the_kill_of_its_worker_halfway(site: Site) -> None:
    environment = os.environ | {
        "TIDINGS_KAFKA": site.cluster.bootstrap,
        "TIDINGS_DATABASE": site.url,
        "TIDINGS_ENTITY_TYPES": "vm",
        "TIDINGS_TOPIC_PREFIX": site.catalogue.prefix,
        "TIDINGS_PARTITIONS": str(site.catalogue.partitions),
    }
    tidings = Path(sys.executable).parent / "tidings"
    doomed = await asyncio.create_subprocess_exec(tidings, "worker", env=environment)
    try:
        await site.until(select(positions.c.next).where(positions.c.next > 0), lambda r: len(r) > 5)
        await site.say(NOTICE_REQUESTS, "billing", replace(request(USERS, "all", lanes=()), key="fire"))
        half = select(positions.c.done).where(positions.c.done > 0)
        await site.until(half, lambda r: len(r) == 1)
    finally:
        doomed.kill()
        await doomed.wait()
    assert 0 < site.rows(half)[0].done < len(USERS)
    async with site.working():
        await site.until(select(func.count()).select_from(notices), lambda r: r[0][0] == len(USERS))
        await site.settled()
        found = {(n.user_id, n.notice_id) for n in site.rows(select(notices.c.user_id, notices.c.notice_id))}
        assert found == {(u, direct_notice_id("billing", "all", u)) for u in USERS}
    raised = [r.event for r in await site.log(NOTICES) if isinstance(r.event, NoticeRaised)]
    assert {e.user for e in raised} == set(USERS)
    assert set(Counter((e.user, e.notice_id) for e in raised)) == found
    assert len({e.event_id for e in raised}) == len(USERS)
