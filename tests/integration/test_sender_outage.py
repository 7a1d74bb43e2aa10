"""The broker goes away between the mail server's acceptance and DeliverySent, and comes back: said once, sent once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy

from broker.embedded import EmbeddedBroker
from tests.integration.sender_world import SmtpServer, World, until
from topics.events import DeliverySent


async def test_a_broker_that_dies_after_the_acceptance_gets_the_result_when_it_is_back(tmp_path: Path) -> None:
    server = SmtpServer()
    await server.start()
    server.rcpt_script = ["hang"]
    with EmbeddedBroker(tmp_path / "kafka") as broker:
        world = World(broker.bootstrap, "outage-", f"sqlite:///{tmp_path}/rows.db")
        await world.start()
        async with world.worker(), world.sender(server, lease_s=30, attempt_s=20):
            await world.request("one")
            await until("the sender is at RCPT", lambda: server.seen_rcpt == 1)
            await asyncio.to_thread(broker.kill)
            server.release.set()
            await until("the mail is taken", lambda: len(server.mails) == 1)
            await until("the acceptance is noted", lambda: world.accepted("one"))
            await asyncio.to_thread(broker.start)

            async def said() -> bool:
                return len(await world.results(DeliverySent)) >= 1

            await until("it is said", said)
            await until("no lease stays", lambda: not world.owners())
            await world.request("two")
            await until("the next goes out", lambda: len(server.mails) == 2)
        await world.stop()
    await server.stop()


async def test_a_database_that_ends_its_connections_is_waited_for(kafka: str, namespace: str, postgres: str) -> None:
    server = SmtpServer()
    await server.start()
    world = World(kafka, namespace, postgres)
    await world.start()
    admin = sqlalchemy.create_engine(postgres, isolation_level="AUTOCOMMIT")
    async with world.sender(server):
        async with world.worker():
            await world.request("one")
            await until("the first is sent", lambda: len(server.mails) == 1)
            await until("no lease stays", lambda: not world.owners())
        ended = 0
        while ended < 20:
            with admin.connect() as connection:
                others = "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
                pids = [r[0] for r in connection.exec_driver_sql(f"{others} AND datname = current_database()")]
                ended += sum(connection.exec_driver_sql(f"SELECT pg_terminate_backend({pid})").rowcount for pid in pids)
            await asyncio.sleep(0)
        async with world.worker():
            await world.request("two")
            await until("the next is sent", lambda: len(server.mails) == 2)
    admin.dispose()
    await world.stop()
    await server.stop()
