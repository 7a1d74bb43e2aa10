"""Every delivery goes out once, or is told why not: against a real log, real databases and a real SMTP server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email import message_from_bytes
from pathlib import Path

import pytest
from sqlalchemy import delete, inspect

from projections.sql.positions import at_assignment
from projections.sql.schema import meta, positions
from sender.attempt import Attempts
from sender.gate import Gate, NotYet
from sender.holdings import Job
from sender.metrics import Metrics
from sender.patience import Patience
from sender.queue import Fold, Queue, RowsMoved, leases
from sender.service import run
from tests.integration.sender_world import SmtpServer, World, no_more, settings, until
from topics.catalogue import DELIVERIES
from topics.cluster import Cluster
from topics.events import DeliveryFailed, DeliveryRetried, DeliverySent
from topics.fetch import Spot
from topics.ids import derived_id
from topics.produce import Producer


@pytest.fixture(params=["sqlite", "postgresql"])
async def world(request: pytest.FixtureRequest, kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[World]:
    postgres = request.param == "postgresql"
    url = request.getfixturevalue("postgres") if postgres else f"sqlite:///{tmp_path}/rows.db"
    world = World(kafka, namespace, url)
    await world.start()
    yield world
    await world.stop()


@pytest.fixture
async def server() -> AsyncIterator[SmtpServer]:
    server = SmtpServer()
    await server.start()
    yield server
    await server.stop()


async def sent(world: World, count: int) -> bool:
    return len(await world.results(DeliverySent)) >= count


async def test_each_delivery_is_one_mail_one_event_and_no_lease_stays(world: World, server: SmtpServer) -> None:
    async with world.worker(), world.sender(server), world.sender(server):
        for i in range(30):
            await world.request(f"d{i}")
        await until("all are sent", lambda: sent(world, 30))
        await until("no lease stays", lambda: not world.owners())
    ids = [message_from_bytes(m)["Message-ID"] for m in server.mails]
    assert sorted(ids) == sorted(f"<d{i}@tidings>" for i in range(30))
    events = await world.results(DeliverySent)
    assert sorted(e.event_id for e in events) == sorted(derived_id("delivery-sent", f"d{i}") for i in range(30))
    assert b'{"answer":"250 taken as number 7"}' in {e.body for e in events}
    assert server.made < 30, "a batch shares connections"


async def test_a_mail_for_later_is_tried_again_as_the_same_bytes(world: World, server: SmtpServer) -> None:
    server.data_script = ["451 4.7.1 greylisted", "drop"]
    async with world.worker(), world.sender(server):
        await world.request("grey")
        await until("it is sent", lambda: sent(world, 1))
    retried = await world.results(DeliveryRetried)
    assert [(e.attempt, e.event_id) for e in retried] == [
        (n, derived_id("delivery-retried", "grey", n)) for n in (1, 2)
    ]
    assert b"451 4.7.1 greylisted" in retried[0].body
    assert (await world.results(DeliverySent))[0].attempt == 3
    first, second = server.mails  # the server had taken the one whose answer was lost: the window that SMTP leaves
    assert first == second


async def test_a_refused_mail_is_failed_with_the_servers_words(world: World, server: SmtpServer) -> None:
    server.rcpt_script = ["550 5.1.1 nobody of that name"]
    async with world.worker(), world.sender(server):
        await world.request("gone")
        await world.request("bad", address="a@example.test\r\nBcc: all@example.test")
        await world.request("pigeon", channel="pigeon")

        async def failed() -> bool:
            return len(await world.results(DeliveryFailed)) == 3

        await until("three have failed", failed)
    reasons = {e.delivery_id: (e.reason, e.body) for e in await world.results(DeliveryFailed)}
    assert {k: v[0] for k, v in reasons.items()} == {"gone": "rejected", "bad": "rejected", "pigeon": "no_channel"}
    assert b"550 5.1.1 nobody of that name" in reasons["gone"][1]
    assert server.mails == []


async def test_a_server_that_hangs_costs_one_attempt_and_no_more_than_its_time(
    world: World, server: SmtpServer
) -> None:
    server.data_script = ["hang"]
    async with world.worker(), world.sender(server, lease_s=4, attempt_s=1):
        await world.request("slow")
        await until("it is sent", lambda: sent(world, 1))
    assert [e.attempt for e in await world.results(DeliveryRetried)] == [1]
    assert len(server.mails) == 1


async def test_what_is_cancelled_or_too_late_is_not_sent(world: World, server: SmtpServer) -> None:
    await world.request("read")
    await world.request("old", deadline_s=-1)
    await world.cancel("read")
    async with world.worker(), world.sender(server):
        await world.request("fresh")
        await until("the fresh one is sent", lambda: sent(world, 1))
        await until("no lease stays", lambda: not world.owners())
    assert [(e.delivery_id, e.reason) for e in await world.results(DeliveryFailed)] == [("old", "too_late")]
    assert [message_from_bytes(m)["Message-ID"] for m in server.mails] == ["<fresh@tidings>"]


async def test_a_retry_is_cancelled_by_a_read(world: World, server: SmtpServer) -> None:
    server.data_script = ["451 later"]
    async with world.worker(), world.sender(server, first_retry_s=3):
        await world.request("read")

        async def retried() -> bool:
            return bool(await world.results(DeliveryRetried))

        await until("the first attempt is over", retried)
        await world.cancel("read")
        await world.request("other")
        await until("the other is sent", lambda: sent(world, 1))
        async with asyncio.timeout(5):
            next_at = (await world.results(DeliveryRetried))[0].next_at
            await until("the retry would be due", lambda: _log_time(world, next_at))
    assert len(server.mails) == 1


async def _log_time(world: World, at: int) -> bool:
    return (await world.say((await world.log())[0])).timestamp > at


class WatchedQueue(Queue):
    """Counts how often the rows were looked at."""

    looks = 0

    def fold(self) -> Fold | None:
        self.looks += 1
        return super().fold()


async def test_nothing_is_sent_before_the_rows_hold_what_was_on_the_log(world: World) -> None:
    """A rebuilt table knows the request and not yet that it was sent."""
    request = await world.request("said")
    await world.sent_by_another("said")
    patience, queue = Patience(asyncio.Event()), WatchedQueue(world.store, "first", 30, 2)
    queue.prepare()
    gate = Gate(world.cluster, world.catalogue, queue, patience)
    async with world.worker():
        await until("the request is there", lambda: world.requested() == 1)
        await until("all is folded", lambda: world.next_of(request.partition) > request.offset + 1)
    old = await gate.open()
    assert not queue.has_due()
    world.wipe()
    gate.shut("wiped")
    async with world.worker():
        world.working.clear()
        with world.store.writing() as tx:
            for spot, epoch in old.epoch.items():
                at_assignment(tx, Spot(DELIVERIES, spot), epoch)
        opening = asyncio.create_task(gate.open())
        await until("the gate looks and waits", lambda: queue.looks >= 5)
        assert not opening.done()
        world.working.set()
        assert (await opening).next[request.partition] >= request.offset + 2
    assert not queue.has_due()
    patience.close()


@pytest.mark.parametrize("change", [{"epoch": "another log"}, {"next": 10_000}])
async def test_rows_of_another_log_are_never_sent_from(world: World, change: dict[str, object]) -> None:
    async with world.worker():
        await world.request("one")
        await until("the request is there", lambda: world.requested() == 1)
    with world.store.writing() as tx:
        tx.execute(positions.update().values(**change))
    patience, queue = Patience(asyncio.Event()), Queue(world.store, "first", 30, 2)
    with pytest.raises(NotYet, match="another log"):
        await Gate(world.cluster, world.catalogue, queue, patience).open()
    patience.close()


async def test_a_rebuild_in_the_middle_says_nothing_again(world: World, server: SmtpServer) -> None:
    async with world.worker(), world.sender(server):
        for i in range(10):
            await world.request(f"d{i}")
        await until("half is sent", lambda: sent(world, 5))
        world.wipe()
        for i in range(10, 20):
            await world.request(f"d{i}")
        await until("all are sent", lambda: sent(world, 20))
        world.wipe()
        await world.request("d20")
        await until("the last is sent", lambda: sent(world, 21))
    assert len(server.mails) == 21


async def test_a_lease_left_by_a_dead_sender_waits_for_what_that_may_have_said(
    world: World, server: SmtpServer
) -> None:
    """The dead one had said DeliverySent, and the worker has not read it when the living sender takes over."""
    async with world.worker(), world.sender(server):
        await world.request("first")
        await until("the sender is at work", lambda: sent(world, 1))
        await until("no lease stays", lambda: not world.owners())
        world.working.clear()
        with world.store.writing() as tx:
            tx.execute(leases.insert().values(delivery_id="left", owner="dead", until=0))
        request = await world.request("left")
        await world.sent_by_another("left")
        with no_more(server.mails):
            world.fold(request)
            await until("the living one takes over", lambda: world.owners().get("left") != "dead")
            world.working.set()
            await until("no lease stays", lambda: not world.owners())


async def test_a_lease_outlasts_a_worker_that_is_behind(world: World, server: SmtpServer) -> None:
    """The result is on the log and the rows do not know it for longer than a lease: nobody sends again."""
    short = {"lease_s": 4.2, "attempt_s": 2.0}
    async with world.worker(), world.sender(server, **short), world.sender(server, **short):
        server.rcpt_script = ["hang"]
        await world.request("one")
        await until("a sender is at work", lambda: server.seen_rcpt == 1)
        world.working.clear()
        server.release.set()
        await until("it is sent", lambda: sent(world, 1))
        with no_more(server.mails):
            later = (await world.request("two")).timestamp + 5_000
            await until("the lease would be over", lambda: _log_time(world, later))
            assert set(world.owners()) == {"one"}
            server.rcpt_script = ["550 nobody"]  # so that two is no mail
            world.working.set()
            await until("no lease stays", lambda: not world.owners())
    assert len([e for e in await world.results(DeliverySent) if e.delivery_id == "one"]) == 1


async def test_what_a_dead_sender_never_began_is_sent_by_the_next(world: World, server: SmtpServer) -> None:
    async with world.worker(), world.sender(server):
        await until("the table is there", lambda: asyncio.to_thread(_has_leases, world))
        with world.store.writing() as tx:
            tx.execute(leases.insert().values(delivery_id="left", owner="dead", until=0))
        await world.request("left")
        await until("it is sent", lambda: sent(world, 1))
    assert len(server.mails) == 1


def _has_leases(world: World) -> bool:
    with world.store.reading() as tx:
        return inspect(tx).has_table(leases.name)


async def test_rows_of_a_newer_version_end_the_sender(world: World, server: SmtpServer) -> None:
    with world.store.writing() as tx:
        tx.execute(meta.update().values(stamp=10_000))
    assert await run(settings(server), world.store, world.cluster, world.catalogue, asyncio.Event()) == 3
    with world.store.writing() as tx:
        tx.execute(delete(meta))


async def test_an_acceptance_that_the_log_did_not_take_is_said_by_the_next_sender(
    world: World, server: SmtpServer
) -> None:
    """The log goes away between the server's acceptance and DeliverySent, and the sender dies before it is back."""
    request = await world.request("one")
    async with world.worker():
        await until("the request is there", lambda: world.requested() == 1)
        await until("all is folded", lambda: request.offset < world.next_of(request.partition))
    patience, settings_ = Patience(asyncio.Event()), settings(server, lease_s=4, attempt_s=1.5)
    queue = Queue(world.store, "first", settings_.lease_s, 2)
    queue.prepare()
    fold = queue.fold()
    assert fold is not None
    _, [taken] = queue.take(10, fold)
    nowhere = Producer(Cluster("127.0.0.1:1"), world.catalogue, "sender")
    attempts = Attempts(settings_, queue, nowhere, patience, Metrics())
    dying = asyncio.create_task(attempts.carry_out(Job(taken, taken.good_until, 1), fold))
    await until("the acceptance is noted", lambda: world.accepted("one"))
    dying.cancel()
    await asyncio.wait([dying])
    assert len(server.mails) == 1
    with no_more(server.mails):
        async with world.worker(), world.sender(server):
            await until("it is said", lambda: sent(world, 1))
            await until("no lease stays", lambda: not world.owners())
    await attempts.close()
    patience.close()


async def test_what_was_cancelled_after_the_lease_is_not_tried(world: World, server: SmtpServer) -> None:
    await world.request("one")
    patience, settings_ = Patience(asyncio.Event()), settings(server)
    queue = Queue(world.store, "first", settings_.lease_s, 2)
    queue.prepare()
    async with world.worker():
        await until("the request is there", lambda: world.requested() == 1)
        fold = queue.fold()
        assert fold is not None
        fold, [taken] = queue.take(10, fold)
        cancelled = await world.cancel("one")
        await until("it is cancelled", lambda: cancelled.offset < world.next_of(cancelled.partition))
    attempts = Attempts(settings_, queue, world.producer, patience, Metrics())
    with no_more(server.mails):
        assert not await attempts.carry_out(Job(taken, taken.good_until, 1), fold)
    world.wipe()
    with pytest.raises(RowsMoved):
        await attempts.carry_out(Job(taken, taken.good_until, 1), fold)
    with pytest.raises(RowsMoved):
        queue.take(10, fold)
    patience.close()


async def test_a_lease_belongs_to_one_until_it_is_over(world: World) -> None:
    for i in range(5):
        await world.request(f"d{i}")
    async with world.worker():
        await until("the requests are there", lambda: world.requested() == 5)
    first, second = Queue(world.store, "first", 1, 2), Queue(world.store, "second", 30, 2)
    first.prepare()
    fold = first.fold()
    assert fold is not None
    _, mine = first.take(3, fold)
    _, others = second.take(10, fold)
    ids = [t.delivery.delivery_id for t in (*mine, *others)]
    assert (len(mine), sorted(ids)) == (3, [f"d{i}" for i in range(5)])
    assert not any(t.inherited for t in (*mine, *others))
    await until("the first lease is over", second.has_due)
    _, inherited = second.take(10, fold)
    assert all(t.inherited for t in inherited)
    assert {t.delivery.delivery_id for t in inherited} <= {t.delivery.delivery_id for t in mine}
    assert first.renew([t.delivery.delivery_id for t in inherited])[0] == set()


async def test_the_scan_of_requests_goes_on_from_the_first_without_a_result(world: World, server: SmtpServer) -> None:
    """However much history there is, what is old and done is not looked at; nothing open is ever skipped."""
    async with world.worker(), world.sender(server):
        for i in range(4):
            await world.request(f"d{i}")
        await until("all are sent", lambda: sent(world, 4))
        await until("no lease stays", lambda: not world.owners())
    queue = Queue(world.store, "first", 30, 2)
    queue.sweep()
    assert not queue.has_due()
    async with world.worker():
        for i in range(4, 8):
            await world.request(f"d{i}")
        await until("the requests are there", lambda: world.requested() == 8)
    queue.sweep()
    fold = queue.fold()
    assert fold is not None
    assert len(queue.take(10, fold)[1]) == 4
