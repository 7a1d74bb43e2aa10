"""What strangers write, what is taken away from under a running worker, and how it ends and begins again."""

import asyncio
import dataclasses
import io
import json
import random
import sqlite3
import string
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from fastavro import schemaless_writer
from prometheus_client import REGISTRY
from sqlalchemy import select

from projections.sql.schema import (
    alert_reports,
    crashes,
    dead_letters,
    delivery_requests,
    entities,
    meta,
    notices,
    positions,
    proposals,
    recipients,
    steps,
)
from streams import watch
from streams.barrier import Barrier
from streams.clock import Clock
from streams.folding import Folding
from streams.worker import RESTART
from tests.integration.worker_site import Site, by_test, entity, raised, recipient, request
from topics.catalogue import (
    ALERT_REPORTS,
    COMMANDS,
    DEAD_LETTERS,
    DELIVERIES,
    MAX_RECORD_BYTES,
    NOTICE_REQUESTS,
    NOTICES,
    RECIPIENTS,
    SCHEMAS,
    entity_topic,
)
from topics.codec import MAGIC, encode
from topics.events import (
    AlertReported,
    ChangeRefused,
    DeliveryRequested,
    Due,
    Lane,
    NoticeRaised,
    PreferencesChanged,
    RecipientChanged,
    Record,
    SchemaPublished,
)
from topics.fetch import Spot
from topics.ids import new_id
from topics.provision import apply
from topics.schemas import Schema, newest_schemas, parse

VM = entity_topic("vm")
HALF = rb'"\ud800"'  # valid JSON, and no text that UTF-8 could hold


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(kafka, namespace, tmp_path).open() as made:
        yield made


@asynccontextmanager
async def administering(site: Site) -> AsyncIterator[AIOKafkaAdminClient]:
    admin = AIOKafkaAdminClient(**site.cluster.for_aiokafka())
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def begun(site: Site) -> None:
    """Until every partition of `notices` is read from."""
    at = select(positions.c.next).where(positions.c.topic == NOTICES, positions.c.next > 0)
    await site.until(at, lambda r: len(r) == 2)


async def delivered(site: Site, *users: str) -> None:
    query = select(steps.c.user_id).where(steps.c.state == "delivered", steps.c.user_id.in_(users))
    await site.until(query, lambda r: {s.user_id for s in r} == set(users))


async def dues(site: Site, user: str) -> Counter[str]:
    """How many were said to whom, once there is one for `user`."""
    async with asyncio.timeout(30):
        while True:
            found = Counter(r.event.user for r in await site.log(NOTICES) if isinstance(r.event, Due))
            if user in found:
                return found


async def until_ready(ready: float) -> None:
    async with asyncio.timeout(30):
        while REGISTRY.get_sample_value("tidings_worker_ready") != ready:  # noqa: ASYNC110 - a gauge sets no event
            await asyncio.sleep(0.02)


def at_once(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    """The watch looks all the time, and waits no longer than `seconds`."""
    for name, value in ({"LOOK_EVERY_S": 0.1} | seconds).items():
        monkeypatch.setattr(watch, name, value)


# ------------------------------------------------------------------ what strangers write
async def test_half_a_surrogate_pair_is_handed_on_as_it_was_written(site: Site) -> None:
    async with site.working():
        body = b'{"name":%b,"addresses":{"email":"eve@example.test"}}' % HALF
        await site.say(COMMANDS, "eve", recipient("eve", body))
        await site.until(select(recipients), lambda r: len(r) == 1)
        preferences = PreferencesChanged(**by_test(), user="eve", cmd=new_id(), body=b'{"x":%b}' % HALF)
        await site.say(NOTICES, "eve", preferences)
        await site.say(NOTICES, "eve", raised("eve", lanes=(Lane("email", "email", "recipient", "eve", 0),)))
        await delivered(site, "eve")
        await site.settled()
    (asked,) = [r.event for r in await site.log(DELIVERIES) if isinstance(r.event, DeliveryRequested)]
    assert json.loads(asked.body)["name"] == "\ud800"


async def test_what_nobody_means_is_a_dead_letter_and_changes_nothing_else(site: Site) -> None:
    real = {"topic": b"notices", "partition": b"0", "offset": b"9", "hash": b"aa", "reason": b"forged"}
    forged: list[dict[str, bytes]] = [
        {"reason": b"only"},
        real | {"offset": b"9" * 30},
        real | {"partition": b"-1"},
        real | {"offset": b"nine"},
        real | {"topic": b"no\0tices", "reason": b"\xff\0"},
    ]
    nobody = Lane("email", "email", "address", "z@example.test", 2**63 - 2)
    async with site.working():
        for headers in forged:
            await site.say_bytes(DEAD_LETTERS, "ann", b"forged", list(headers.items()))
        await site.say(NOTICES, "ann", raised("ann", lanes=(nobody,)))
        await site.say(NOTICE_REQUESTS, "billing", request(("ann",), "never", lanes=(nobody,)))
        await site.say(NOTICES, "ann", raised("ann", body=b'{"title":"' + b"x" * (MAX_RECORD_BYTES - 1500) + b'"}'))
        await site.say(NOTICES, "ann", raised("ann"))
        await delivered(site, "ann")
        await site.settled()
        letters = {(r.topic, r.reason) for r in site.rows(select(dead_letters))}
        never = f"a forward after {2**63 - 2} ms"
        assert {(NOTICES, never), (NOTICE_REQUESTS, never)} <= letters
        assert not site.rows(select(crashes))


async def test_of_two_changes_of_one_version_one_is_accepted_and_a_rebuild_says_nothing_new(site: Site) -> None:
    async with site.working():
        await site.say(COMMANDS, "ann", recipient("ann"))
        await site.until(select(recipients.c.version), lambda r: [v.version for v in r] == [1])
        for _ in range(2):
            await site.say(COMMANDS, "ann", recipient("ann", based_on=1))
        outcomes = select(proposals.c.outcome, proposals.c.version).order_by(proposals.c.offset)
        wanted = [("accepted", 1), ("accepted", 2), ("version", 2)]
        await site.until(outcomes, lambda r: [tuple(p) for p in r] == wanted)
        await site.settled()
    before = await site.said()
    with site.store.writing() as tx:
        tx.execute(meta.update().values(stamp=0))
    async with site.working():
        await site.until(outcomes, lambda r: [p.outcome for p in r] == ["accepted", "accepted", "version"])
        await site.settled()
        await site.say(COMMANDS, "bob", recipient("bob"))  # what was to be said again is said before its answer
        await site.until(select(recipients), lambda r: len(r) == 2)
    assert sorted(topic for topic, _ in await site.said() - before) == [COMMANDS, RECIPIENTS]
    said = [r.event for t in (COMMANDS, RECIPIENTS) for r in await site.log(t)]
    changed = [e.version for e in said if isinstance(e, RecipientChanged) and e.recipient_id == "ann"]
    assert (changed, [e.version for e in said if isinstance(e, ChangeRefused)]) == ([1, 2], [2])


async def test_postgres_takes_requests_and_what_it_can_not_hold_is_a_dead_letter(
    kafka: str, namespace: str, tmp_path: Path, postgres: str
) -> None:
    async with Site(kafka, namespace, tmp_path, postgres).open() as site, site.working():
        await site.say(VM, "a\0b", entity("a\0b"))
        await site.say(VM, "a\0b", entity("ab"))
        await site.say(NOTICES, "ann", raised("ann", severity="\0"))
        await site.say(COMMANDS, "ann", recipient("ann"))
        await site.until(select(recipients), lambda r: len(r) == 1)
        await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bob"), "r1", forward="\0"))
        await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bo\0b"), "r1"))
        report = AlertReported(**by_test(), alert="cpu", shard=0, kind="error", config_id=None, body=b"\0 in a trace")
        await site.say(ALERT_REPORTS, "cpu/0", report)
        await site.say(ALERT_REPORTS, "cpu/0", dataclasses.replace(report, event_id=new_id(), shard=1 << 40))
        long = "".join(random.Random(1).choices(string.printable, k=6_000))  # beyond what an index takes, unpacked too
        await site.say(VM, long, entity(long))
        await site.say(NOTICE_REQUESTS, "billing", request(("ann", "bob"), "r2"))
        await delivered(site, "ann")
        await site.settled()
        states = {(s.user_id, s.state, s.reason) for s in site.rows(select(steps))}
        assert states == {("ann", "delivered", "unread"), ("bob", "skipped", "no_address")}
        assert [r.text for r in site.rows(select(alert_reports))] == ["\ufffd in a trace"]
        assert len(site.rows(select(dead_letters).where(dead_letters.c.topic != DEAD_LETTERS))) == 7
        assert not site.rows(select(crashes))


async def test_a_transaction_at_the_end_of_a_topic_holds_up_neither_a_start_nor_the_end(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, QUIET_AFTER_S=0.2)
    backend = AIOKafkaProducer(**site.cluster.for_aiokafka(), transactional_id=f"{site.catalogue.prefix}backend")
    await backend.start()

    async def write(*ids: str) -> None:
        async with backend.transaction():
            for i in ids:
                await backend.send_and_wait(site.catalogue.physical(VM), encode(entity(i)), i.encode())

    try:
        await write("v1", "v2", "v3")
        async with site.working():
            await site.say(NOTICES, "ann", raised("ann"))
            await delivered(site, "ann")  # after the barrier only
            await write("v4")
            await site.settled()
            await write("v5")
            await site.say(VM, "v4", entity("v6"))  # goes where v4 stands: refused under that key, but read
            await site.say(VM, "v7", entity("v7"))
            there = {"v1", "v2", "v3", "v4", "v5", "v7"}
            await site.until(select(entities), lambda r: {e.entity_id for e in r} == there)
            await site.settled()
    finally:
        await backend.stop()


def of_tomorrow() -> tuple[Schema, Callable[[str], bytes]]:
    """A schema of entities that nobody here knows, and what a newer program writes by it."""
    told = json.loads(newest_schemas()["EntityChanged"].text)
    told["fields"].append({"name": f"x{new_id()[:8]}", "type": "int", "default": 0})
    schema = parse(json.dumps(told))

    def write(entity_id: str) -> bytes:
        event = entity(entity_id)
        out = io.BytesIO()
        out.write(MAGIC + schema.fingerprint)
        fields = {n: getattr(event, n, 1) for n in (f["name"] for f in told["fields"])}
        schemaless_writer(out, schema.parsed, fields)
        return out.getvalue()

    return schema, write


async def test_a_schema_that_nobody_knows_yet_is_waited_for_while_the_rest_goes_on(site: Site) -> None:
    schema, write = of_tomorrow()
    async with site.working():
        await begun(site)
        await until_ready(1)
        await site.say_bytes(VM, "v1", write("v1"))
        await until_ready(0)
        others = [f"w{i}" for i in range(20_000)]  # more than any buffer
        await asyncio.gather(*[await site.producer.enqueue(VM, i, entity(i)) for i in others])
        await site.say(VM, "v1", entity("v1", b'{"newer":true}'))
        await site.say(NOTICES, "ann", raised("ann"))
        await delivered(site, "ann")
        first = select(entities.c.body).where(entities.c.entity_id == "v1")
        assert not site.rows(first)
        name = schema.fingerprint.hex()
        published = SchemaPublished(**by_test(), fingerprint=name, schema=schema.text)
        await site.say(SCHEMAS, name, published)
        await site.until(first, lambda r: [e.body for e in r] == ['{"newer":true}'])
        await until_ready(1)
        await site.settled()
        assert {e.entity_id for e in site.rows(select(entities.c.entity_id))} == {"v1", *others}
        assert not site.rows(select(dead_letters).where(dead_letters.c.topic == VM))


# ------------------------------------------------------------------ what is taken away
async def test_a_topic_made_anew_under_a_worker_is_noticed_and_all_rows_are_rebuilt(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch, CHECK_EVERY_S=0.2)
    async with site.working(RESTART) as task:
        await site.say(VM, "v1", entity("v1"))
        for user in ("ann", "bob", "cyd"):
            await site.say(NOTICES, user, raised(user))
        await delivered(site, "ann", "bob", "cyd")
        async with administering(site) as admin:
            await admin.delete_topics([site.catalogue.physical(NOTICES)])
            async with asyncio.timeout(30):
                while site.catalogue.physical(NOTICES) in await admin.list_topics():  # noqa: ASYNC110 - a broker calls nobody
                    await asyncio.sleep(0.05)
        await asyncio.to_thread(apply, site.cluster, site.catalogue)
        assert await asyncio.wait_for(task, 60) == RESTART
    async with site.working():
        await site.say(NOTICES, "new", raised("new"))
        await delivered(site, "new")
        await site.settled()
    assert [n.user_id for n in site.rows(select(notices))] == ["new"]
    assert len(site.rows(select(entities))) == 1
    assert len(site.rows(select(delivery_requests))) == 4


async def test_a_start_without_rows_completes_on_a_topic_whose_beginning_has_aged_away(site: Site) -> None:
    for i in range(3):
        await site.say(COMMANDS, f"r{i}", recipient(f"r{i}"))
    async with administering(site) as admin:
        spot = TopicPartition(site.catalogue.physical(COMMANDS), 0)
        await admin.delete_records({spot: RecordsToDelete(before_offset=-1)})
    async with site.working():
        await site.say(NOTICES, "ann", raised("ann"))
        await delivered(site, "ann")
        await site.say(COMMANDS, "ann", recipient("ann"))
        await site.until(select(recipients.c.recipient_id), lambda r: [x.recipient_id for x in r] == ["ann"])
        await site.settled()


async def test_another_database_file_in_the_place_of_the_open_one_ends_the_worker(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_once(monkeypatch)
    async with site.working(RESTART) as task:
        await site.say(NOTICES, "ann", raised("ann"))
        await delivered(site, "ann")
        await site.settled()
        db, copy = tmp_path / "tidings.db", tmp_path / "copy.db"
        with closing(sqlite3.connect(db)) as source, closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        copy.replace(db)
        assert await asyncio.wait_for(task, 60) == RESTART


async def test_a_clock_that_was_led_astray_by_a_wrong_stamp_says_a_due_once_and_knows_better(site: Site) -> None:
    box = Spot(NOTICES, 0)
    folding = Folding(site.store, site.catalogue, Barrier({box: 0}), "test", lambda _spot, _first: None)
    folding.rows_of = site.store.prepare()
    await folding.own([box], {}, {})
    await folding.barrier.check(folding)

    async def fold(offset: int, at: int, event: NoticeRaised) -> None:
        await folding.fold(box, [Record(*box, offset, at, event.user, event, encode(event))], 0)

    now = int(time.time() * 1000)
    await fold(0, now + 3_600_000, raised("ann"))
    clock = asyncio.create_task(Clock(site.producer).run(folding))
    await dues(site, "ann")
    await fold(1, now, raised("bob", after_ms=1))
    await dues(site, "bob")
    await fold(2, int(time.time() * 1000), raised("cyd", after_ms=500))
    assert await dues(site, "cyd") == {"ann": 1, "bob": 1, "cyd": 1}
    clock.cancel()


# ------------------------------------------------------------------ how it ends
async def test_a_start_that_waits_for_the_broker_stops_at_once(
    namespace: str, tmp_path: Path, free_ports: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Site(f"127.0.0.1:{free_ports[0]}", namespace, tmp_path)
    async with asyncio.timeout(30), nowhere.working():
        while "the broker is away" not in caplog.text:  # noqa: ASYNC110 - a log sets no event
            await asyncio.sleep(0.02)
    nowhere.store.close()


async def test_a_worker_that_waits_for_a_locked_database_stops(site: Site, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "tidings.db", isolation_level=None)) as other:
        async with site.working():
            await begun(site)
            other.execute("BEGIN IMMEDIATE")
            await site.say(NOTICES, "ann", raised("ann"))
        other.execute("ROLLBACK")
    async with site.working():
        await delivered(site, "ann")
