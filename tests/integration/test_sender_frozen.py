"""A sender that sleeps longer than its lease, in a process of its own: another one sends, and the sleeper gives way."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.sender_world import SmtpServer, World, no_more, until
from topics.events import DeliverySent

PROGRAM = """
import asyncio, sys
from projections.sql.store import Store
from sender.service import run
from sender.settings import SenderSettings
from topics.catalogue import Catalogue
from topics.cluster import Cluster
smtp, url, bootstrap, prefix = sys.argv[1:]
settings = SenderSettings(smtp=smtp, lease_s=4, attempt_s=1.5, poll_s=0.03)
catalogue = Catalogue((), prefix=prefix, partitions=2)
sys.exit(asyncio.run(run(settings, Store(url), Cluster(bootstrap), catalogue, asyncio.Event())))
"""


@pytest.fixture
async def world(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[World]:
    world = World(kafka, namespace, f"sqlite:///{tmp_path}/rows.db")
    await world.start()
    yield world
    await world.stop()


@pytest.mark.parametrize("fault", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_sender_frozen_or_killed_before_the_data_costs_no_second_mail(
    world: World, fault: signal.Signals
) -> None:
    server = SmtpServer()
    server.rcpt_script = ["hang"]
    await server.start()
    arguments = (server.url, world.store.url, world.cluster.bootstrap, world.catalogue.prefix)
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, *arguments)
    try:
        async with world.worker():
            await world.request("one")
            await until("the first sender is at RCPT", lambda: server.seen_rcpt == 1)
            process.send_signal(fault)
            sleeper = next(iter(server.connections))
            server.release.set()  # now the way to DATA is free
            async with world.sender(server):

                async def sent() -> bool:
                    return len(await world.results(DeliverySent)) == 1

                await until("the second sender has sent it", sent)
                await until("no lease stays", lambda: not world.owners())
            with no_more(server.mails):
                if fault == signal.SIGSTOP:
                    process.send_signal(signal.SIGCONT)
                await until("the sleeper has hung up", lambda: sleeper not in server.connections)
                if fault == signal.SIGSTOP:
                    await world.request("two", channel="pigeon")  # it is awake and takes part again

                    async def answered() -> bool:
                        return len(await world.log()) == 4

                    await until("the sleeper works again", answered)
        assert len(server.mails) == 1
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await server.stop()
