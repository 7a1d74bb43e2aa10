"""Faust as the consumer runtime: membership, assignment and flow; everything else (positions, rows, output) is ours.

Private API of a pinned Faust is used in three places, each with a test: the consumer seeks to the positions in SQL
instead of the group's commits, the table manager (there are no tables) starts without its fixed sleep of a second, and
no directories are made for tables.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar

import faust
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from topics.cluster import REQUEST_BYTES, Cluster

BATCH = 500
YIELDS = 4

Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]


def consumer_app(name: str, cluster: Cluster, positions: Positions) -> faust.App:
    """An app in the group `name` that reads each partition from where `positions` says.

    Agents are added by the caller.
    """

    class SqlConsumer(driver.Consumer):
        async def seek_to_committed(self) -> Mapping[TP, int]:
            found = await positions(self.assignment())
            await self._thread.seek_wait(found)
            return found

    class SqlTransport(driver.Transport):
        Consumer: ClassVar[type[SqlConsumer]] = SqlConsumer

    class NoTables(TableManager):
        async def on_start(self) -> None:
            await self._update_channels()
            await self.recovery.start()

    class FilelessApp(faust.App):
        def _create_directories(self) -> None:
            """There are no tables to keep in files, and the working directory is not ours."""

    app = FilelessApp(
        name,
        broker=[f"kafka://{host}" for host in cluster.bootstrap.split(",")],
        broker_credentials=_credentials(cluster),
        TableManager=NoTables,
        store="memory://",
        key_serializer="raw",
        value_serializer="raw",
        broker_session_timeout=6,
        broker_heartbeat_interval=1,
        broker_rebalance_timeout=10,
        broker_request_timeout=20,
        broker_commit_interval=1,
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=REQUEST_BYTES,
        stream_wait_empty=False,
        stream_buffer_maxsize=8192,
        broker_max_poll_records=1000,  # less than the buffer: a partition that rests can't fill it
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        loghandlers=[],
    )
    app._transport = SqlTransport(app.conf.broker, app, app.loop)  # noqa: SLF001 - the driver that reads positions from SQL
    return app


async def greedy(stream: Any) -> AsyncIterator[list[Any]]:
    """Batches of what is there; never waits for more.

    So a lone event is folded at once, and a backlog in batches of BATCH. Ends when the stream does, as it does when the
    app stops.
    """
    events = stream.noack().events().__aiter__()

    async def following() -> Any:
        return await anext(events, None)

    waiting: asyncio.Future[Any] = asyncio.ensure_future(following())
    while (first := await waiting) is not None:
        batch = [first]
        waiting = asyncio.ensure_future(following())
        for _ in range(YIELDS):
            await asyncio.sleep(0)
            while waiting.done() and len(batch) < BATCH and waiting.result() is not None:
                batch.append(waiting.result())
                waiting = asyncio.ensure_future(following())
                await asyncio.sleep(0)
        yield batch


def _credentials(cluster: Cluster) -> Any:
    options = cluster.for_aiokafka()
    context = options.get("ssl_context")
    if cluster.sasl_mechanism:
        return faust.SASLCredentials(
            username=cluster.sasl_username,
            password=cluster.sasl_password,
            mechanism=cluster.sasl_mechanism,
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context else None
