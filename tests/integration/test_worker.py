"""The worker on a real broker.

Requests become notices, time becomes forwards, reads stop them, starts repeat nothing.
"""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from projections.sql.schema import delivery_requests, meta, notices, positions, recipients, steps
from tests.integration.worker_site import Site, mark, recipient, request
from topics.catalogue import COMMANDS, DELIVERIES, NOTICE_REQUESTS, NOTICES, RECIPIENTS
from topics.events import Decided, DeliveryRequested, Lane
from topics.fetch import reading
from topics.ids import direct_notice_id


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(kafka, namespace, tmp_path).open() as made:
        yield made


async def test_an_unread_notice_is_forwarded_once_and_a_read_one_never(site: Site) -> None:
    async with site.working():
        for user in ("ann", "bob"):
            await site.say(COMMANDS, user, recipient(user))
        await site.until(
            select(positions.c.next).where(positions.c.topic == RECIPIENTS), lambda r: bool(r and r[0].next >= 3)
        )
        lanes = tuple(Lane("email", "email", "recipient", u, ms) for u, ms in (("ann", 600_000), ("bob", 100)))
        await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bob"), "r1", lanes=lanes))
        raised = await site.until(select(notices), lambda r: len(r) == 2)
        assert {(n.user_id, n.body) for n in raised} == {
            (u, '{"title":"hello","metric":{"high":1.10}}') for u in ("ann", "bob")
        }
        await site.say(NOTICES, "ann", mark("ann", direct_notice_id("billing", "r1", "ann"), "read"))
        await site.until(select(delivery_requests), lambda r: len(r) == 1)
        await site.settled()
        states = {s.user_id: (s.state, s.reason) for s in site.rows(select(steps))}
        assert states == {"ann": ("skipped", "read"), "bob": ("delivered", "unread")}
    asked = [r.event for r in await site.log(DELIVERIES) if isinstance(r.event, DeliveryRequested)]
    assert [(d.user, d.channel) for d in asked] == [("bob", "email")]
    assert b'"address":"bob@example.test"' in asked[0].body


async def test_a_rebuild_gives_the_same_rows_and_says_nothing(site: Site) -> None:
    tables = (notices, steps, delivery_requests)
    async with site.working():
        await site.say(COMMANDS, "ann", recipient("ann"))
        await site.until(select(recipients), lambda r: len(r) == 1)
        for i in range(20):
            await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bob"), f"r{i}", after_ms=0))
        await site.until(select(delivery_requests), lambda r: len(r) == 20)
        await site.settled()
    before = {t.name: sorted(map(repr, site.rows(select(t)))) for t in tables}
    logged = await site.sizes()
    with site.store.writing() as tx:
        tx.execute(meta.update().values(stamp=0))
    async with site.working():
        await site.until(select(meta.c.stamp), lambda r: bool(r and r[0].stamp > 0))
        await site.settled()
    assert {t.name: sorted(map(repr, site.rows(select(t)))) for t in tables} == before
    assert await site.sizes() == logged


async def test_each_question_has_one_answer_on_the_log_after_restarts(site: Site) -> None:
    async with site.working():
        await site.say(COMMANDS, "ann", recipient("ann"))
        await site.until(select(recipients), lambda r: len(r) == 1)
        await site.say(NOTICE_REQUESTS, "billing", request(("ann",), "a", after_ms=100))
    async with site.working():
        await site.until(select(delivery_requests), lambda r: len(r) == 1)
        await site.settled()
    decided = [r.event for r in await site.log(NOTICES) if isinstance(r.event, Decided)]
    assert len({d.event_id for d in decided}) == 1


async def test_bytes_that_are_no_event_become_dead_letters_and_nothing_stops(site: Site) -> None:
    await site.say_bytes(NOTICE_REQUESTS, "billing", b"garbage")
    await site.say_bytes(NOTICES, "ann", b"\xc3\x01short")
    async with site.working():
        await site.say(NOTICE_REQUESTS, "billing", request(("ann",), "after"))
        await site.until(select(notices), lambda r: len(r) == 1)
        await site.settled()
    async with reading(site.cluster, site.catalogue) as reader:
        ends = await reader.ends(reader.spots(["dead-letters"]))
    assert sum(ends.values()) == 1 + 2
