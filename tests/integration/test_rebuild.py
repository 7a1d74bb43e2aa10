"""The read models rebuilt beside a working installation, and compared with the log; SQLite and PostgreSQL alike."""

import asyncio
import contextlib
import os
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update
from websockets import ConnectionClosed

from projections import shares
from projections.rebuild import CannotRebuild, Rebuilt, rebuild
from projections.sql.compare import Difference, shown
from projections.sql.schema import (
    STAMP,
    alert_configs,
    delivery_requests,
    entities,
    meta,
    metadata,
    notices,
    outbox,
    positions,
    recipients,
    steps,
    tallies,
    trail,
)
from projections.sql.shadow import InTheWay, beside
from projections.sql.store import NewerRows, Store
from projections.verify import CannotVerify, verify
from streams.worker import RESTART
from tests.integration.command_line import TIDINGS, bare, tidings
from tests.integration.gateway_world import Site as GatewaySite
from tests.integration.worker_site import Site, by_test, entity, mark, raised, recipient, request
from topics.catalogue import COMMANDS, NOTICE_REQUESTS, NOTICES, entity_topic
from topics.events import Lane, PreferencesChanged
from topics.fetch import reading
from topics.ids import new_id

VM = entity_topic("vm")
PEOPLE = ("ann", "bob", "cyd")


@pytest.fixture(params=["sqlite", "postgres"])
async def site(request: pytest.FixtureRequest, kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    url = request.getfixturevalue("postgres") if request.param == "postgres" else ""
    async with Site(kafka, namespace, tmp_path, url).open() as made:
        yield made


async def lived(site: Site) -> None:
    """A bit of everything, in order and out of it: what is read, forwarded, poison, kept for later, decided."""
    for user in PEOPLE:
        await site.say(COMMANDS, user, recipient(user))
    await site.say(COMMANDS, "ann", recipient("ann", based_on=7))  # refused
    for i in range(3):
        await site.say(VM, f"v{i}", entity(f"v{i}", b'{"n":%d}' % i))
    await site.say(NOTICES, "ann", PreferencesChanged(**by_test(), user="ann", cmd=new_id(), body=b"{}"))
    never = Lane("email", "email", "address", "z@example.test", 2**63 - 2)
    await site.say(NOTICES, "ann", raised("ann", lanes=(never,)))
    await site.say_bytes(NOTICES, "ann", b"poison")
    for user in PEOPLE:
        later = raised(user, after_ms=3_600_000)
        await site.say(NOTICES, user, later)
        await site.say(NOTICES, user, mark(user, later.notice_id, "read"))
        await site.say(NOTICES, user, raised(user))
    await site.until(select(recipients), lambda rows: len(rows) == 3)
    for key in ("r1", "r2"):
        await site.say(NOTICE_REQUESTS, "billing", request(PEOPLE, key))
    delivered = select(steps.c.user_id).where(steps.c.state == "delivered")
    await site.until(delivered, lambda rows: len(rows) == 9)
    await site.settled()


async def differences(site: Site) -> list[Difference]:
    found: list[Difference] = []
    told = await verify(site.cluster, site.catalogue, site.url, lambda _progress: None, found.append)
    assert told.differences == len(found)
    assert told.rows
    return found


async def rebuilt(site: Site, *projections: str) -> Rebuilt:
    return await rebuild(site.cluster, site.catalogue, site.url, lambda _progress: None, projections)


def rows_of(site: Site) -> str:
    return str(site.rows(select(meta.c.generation))[0].generation)


def given(site: Site) -> dict[str, str]:
    """The settings of this site's log and database, for the command line."""
    return {
        "kafka": site.cluster.bootstrap,
        "database": site.url,
        "entity_types": "vm",
        "partitions": "2",
        "topic_prefix": site.catalogue.prefix,
    }


async def test_a_rebuild_beside_a_worker_gives_equal_rows_and_says_nothing(site: Site) -> None:
    async with site.working(RESTART) as task:
        await lived(site)
        before, generation = await site.sizes(), rows_of(site)
        assert await differences(site) == []
        done = await rebuilt(site)
        assert done.events == sum(n for t, n in before.items() if t != "alert-checkpoints")
        assert await asyncio.wait_for(task, 30) == RESTART
    assert rows_of(site) != generation
    assert not site.rows(select(outbox.c.event_id))
    async with site.working():
        await site.settled()
        decided = select(recipients.c.recipient_id, recipients.c.version).order_by(recipients.c.recipient_id)
        await site.until(decided, lambda rows: [tuple(r) for r in rows] == [(u, 1) for u in PEOPLE])
        assert await differences(site) == []
        assert await site.sizes() == before
        await site.say(NOTICES, "new", raised("new"))
        await site.until(select(delivery_requests), lambda rows: len(rows) == 10)


async def test_while_notices_come_in_a_rebuild_swaps_in_and_none_is_lost_or_said_twice(site: Site) -> None:
    asked = [0]

    async def traffic() -> None:
        while True:
            asked[0] += 1
            await site.say(NOTICE_REQUESTS, "billing", request(PEOPLE, f"t{asked[0]}"))
            await site.say(NOTICES, "dan", raised("dan"))
            await asyncio.sleep(0.05)  # some eighty records a second come of it

    async with site.working(RESTART) as task:
        for user in PEOPLE:
            await site.say(COMMANDS, user, recipient(user))
        await site.until(select(recipients), lambda rows: len(rows) == 3)
        talking = asyncio.create_task(traffic())
        await site.until(select(notices).limit(20), lambda rows: len(rows) == 20)
        assert await differences(site) == []
        await rebuilt(site)
        assert await asyncio.wait_for(task, 30) == RESTART
        talking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await talking
    async with site.working():
        await site.settled()
        await site.until(select(steps).where(steps.c.state != "delivered"), lambda rows: not rows)
        await site.settled()
        assert await differences(site) == []
    said = [r.event for t in (NOTICES, "deliveries") for r in await site.log(t)]
    wanted = {n.notice_id for n in site.rows(select(notices.c.notice_id))}
    assert len(site.rows(select(delivery_requests))) == len(wanted) >= 4 * (asked[0] - 1)
    assert {getattr(e, "notice_id", None) for e in said} >= wanted


async def test_wrong_rows_are_found_and_a_rebuild_mends_them(site: Site, tmp_path: Path) -> None:
    async with site.working():
        await lived(site)
    before = await site.sizes()
    with site.store.writing() as tx:
        one = tx.execute(select(notices.c.notice_id).where(notices.c.user_id == "ann").limit(1)).scalar()
        tx.execute(update(notices).where(notices.c.notice_id == one).values(body="{}"))
        tx.execute(delete(steps).where(steps.c.user_id == "bob"))
        tx.execute(update(tallies).where(tallies.c.user_id == "cyd").values(unread=99))
        tx.execute(delete(delivery_requests).where(delivery_requests.c.user_id == "cyd"))
        config = {c.name: 0 for c in alert_configs.columns} | {"config_id": "made up", "name": "", "body": "{}"}
        tx.execute(insert(alert_configs), [config | {"deleted": False, "enabled": True}])
        tx.execute(update(trail).where(trail.c.topic == NOTICES).values(event_id="of another log"))
        waiting = {"lane_topic": NOTICES, "lane_partition": 0, "source_offset": 1, "position": 0, "event_id": "x"}
        tx.execute(insert(outbox), [waiting | {"topic": NOTICES, "key": "ann", "value": b"never to be said"}])
    found = await differences(site)
    tables = {d.table for d in found}
    wrong = {"notices", "steps", "tallies", "delivery_requests", "alert_configs", "trail", "outbox"}
    assert tables == wrong
    assert "tallies cyd: unread: the log says 3, the rows say 99" in list(shown(found))
    told = await asyncio.to_thread(tidings, tmp_path, "verify", given=given(site))
    assert (told.returncode, told.stdout.splitlines()) == (1, list(shown(found)))
    told = await asyncio.to_thread(tidings, tmp_path, "rebuild", given=given(site))
    assert told.returncode == 0, told.stderr
    told = await asyncio.to_thread(tidings, tmp_path, "verify", given=given(site))
    assert (told.returncode, told.stdout) == (0, "")
    assert "0 differences" in told.stderr
    async with site.working():
        await site.settled()
    assert await site.sizes() == before


async def test_a_rebuild_that_is_killed_leaves_the_rows_as_they_were(site: Site) -> None:
    async with site.working():
        await lived(site)
    sending = [await site.producer.enqueue(NOTICES, "eve", raised("eve", 3_600_000)) for _ in range(12_000)]
    await asyncio.gather(*sending)
    generation, before = rows_of(site), {t.name: site.rows(select(t)) for t in metadata.sorted_tables}
    for after_s in (1.0, 1.4, 1.8):
        process = await asyncio.create_subprocess_exec(*TIDINGS, "rebuild", env=bare(**given(site)), stderr=DEVNULL)
        try:
            await asyncio.wait_for(process.wait(), after_s)
        except TimeoutError:
            process.kill()
            await process.wait()
        if rows_of(site) != generation:
            break  # it was done before the kill
        assert {t.name: site.rows(select(t)) for t in metadata.sorted_tables} == before
    await rebuilt(site)
    assert rows_of(site) != generation
    assert await differences(site) == []
    async with site.working():
        await site.settled()


async def test_two_rebuilds_refuse_each_other(site: Site) -> None:
    with beside(site.url), pytest.raises(InTheWay, match="another rebuild"):
        await rebuilt(site)
    await rebuilt(site)


async def test_an_empty_database_is_filled_without_a_worker(site: Site, kafka: str, tmp_path: Path) -> None:
    async with site.working():
        await lived(site)
    store = Store(f"sqlite:///{tmp_path}/empty.db")
    await rebuild(site.cluster, site.catalogue, store.url, lambda _progress: None)
    told = await verify(site.cluster, site.catalogue, store.url, lambda _progress: None, lambda d: pytest.fail(str(d)))
    assert told.differences == 0
    with store.reading() as tx:
        assert len(tx.execute(select(notices)).all()) == 12
    store.close()


async def test_one_projection_alone_is_rebuilt_where_nothing_hangs_on_it(site: Site, tmp_path: Path) -> None:
    async with site.working():
        await lived(site)
    with site.store.writing() as tx:
        tx.execute(delete(entities))
        tx.execute(update(notices).where(notices.c.user_id == "ann").values(body="{}"))
    generation = rows_of(site)
    await rebuilt(site, "entities")
    assert len(site.rows(select(entities))) == 3
    assert rows_of(site) != generation
    assert {d.table for d in await differences(site)} == {"notices"}
    with site.store.writing() as tx:
        tx.execute(update(positions).where(positions.c.topic == VM).values(epoch="another"))
    with pytest.raises(CannotRebuild, match="rebuild all"):
        await rebuilt(site, "entities")
    refused = await asyncio.to_thread(tidings, tmp_path, "rebuild", "--projection", "notices", given=given(site))
    assert (refused.returncode, "can't be rebuilt alone" in refused.stderr) == (2, True)


async def test_rows_of_another_log_or_beyond_its_end_are_told_and_rebuilt(site: Site) -> None:
    async with site.working():
        await lived(site)
    with site.store.writing() as tx:
        tx.execute(update(positions).where(positions.c.topic == VM).values(epoch="another"))
        tx.execute(update(positions).where(positions.c.topic == NOTICES).values(next=10_000))
    found = {(d.table, d.column) for d in await differences(site)}
    assert found >= {("positions", "epoch"), ("positions", "next")}
    await rebuilt(site)
    assert await differences(site) == []
    async with site.working():
        await site.settled()


async def test_a_database_restored_from_an_old_copy_catches_up_and_says_nothing_again(
    kafka: str, namespace: str, tmp_path: Path
) -> None:
    async with Site(kafka, namespace, tmp_path).open() as site:
        async with site.working():
            await lived(site)
        site.store.close()
        copy = shutil.copy(tmp_path / "tidings.db", tmp_path / "copy.db")
        async with site.working():
            await site.say(NOTICE_REQUESTS, "billing", request(PEOPLE, "r3"))
            await site.until(select(steps).where(steps.c.state == "delivered"), lambda rows: len(rows) == 12)
            await site.settled()
        before = await site.sizes()
        site.store.close()
        for suffix in ("-wal", "-shm"):
            await asyncio.to_thread(Path(f"{tmp_path}/tidings.db{suffix}").unlink, missing_ok=True)
        shutil.copy(copy, tmp_path / "tidings.db")
        assert await differences(site) == []
        async with site.working():
            await site.settled()
        assert await differences(site) == []
        assert await site.sizes() == before
        async with reading(site.cluster, site.catalogue) as reader:
            ends = await reader.ends(reader.spots([NOTICES]))
        at = {(p.topic, p.partition): p.next for p in site.rows(select(positions)) if p.topic == NOTICES}
        assert at == ends


async def test_a_gateway_loads_rows_again_that_were_rebuilt(kafka: str, namespace: str, tmp_path: Path) -> None:
    site = GatewaySite(kafka, namespace, tmp_path)
    await site.make()
    async with site.gateway() as door, door.http() as http:
        (await http.put("/v1/entities/vm/v1", json={"n": 1})).raise_for_status()
    await rebuild(site.cluster, site.catalogue, site.url, lambda _progress: None)
    store = Store(site.url)
    with store.writing() as tx:
        tx.execute(update(entities).values(body='{"n":666}'))
    store.close()
    everything = {"channel": "entities/vm", "snapshot": True}
    async with site.gateway() as door:
        async with door.socket() as talk:
            (wrong,) = (await talk.ask(subscribe=everything))["snapshot"]
            await rebuild(site.cluster, site.catalogue, site.url, lambda _progress: None)
            with pytest.raises(ConnectionClosed) as closed:
                await talk.receive()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == 4502
        await door.until(lambda: door.server.gateway.ready)
        async with door.socket() as talk:
            (right,) = (await talk.ask(subscribe=everything))["snapshot"]
    assert (wrong["entity"], right["entity"]) == ({"n": 666}, {"n": 1})


async def test_shares_fold_what_one_process_folds_and_give_up_where_users_are_not_apart(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shares, "FEW", 1)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    async with site.working():
        await lived(site)
        await site.settled()
        before = await site.sizes()
    await rebuilt(site)
    assert "in one process" not in caplog.text
    assert await differences(site) == []
    assert not site.rows(select(outbox.c.event_id))
    await site.say(NOTICES, "cyd", raised("ann", lanes=()))  # where no notice of hers belongs
    await rebuilt(site)
    assert ("in one process" in caplog.text) == site.url.startswith("sqlite")  # files have to be joined
    assert await differences(site) == []
    grown = {t: n - before[t] for t, n in (await site.sizes()).items() if n != before[t]}
    assert grown == {NOTICES: 1}


async def test_rows_of_an_older_version_serve_until_they_are_replaced_and_those_of_a_newer_stay(site: Site) -> None:
    async with site.working():
        await lived(site)
    with site.store.writing() as tx:
        tx.execute(update(meta).values(stamp=STAMP - 1))
    with pytest.raises(CannotVerify):
        await differences(site)
    with pytest.raises(CannotRebuild, match="rebuild all"):
        await rebuilt(site, "entities")
    await rebuilt(site)
    assert await differences(site) == []
    with site.store.writing() as tx:
        tx.execute(update(meta).values(stamp=STAMP + 1))
    with pytest.raises(NewerRows):
        await rebuilt(site)
