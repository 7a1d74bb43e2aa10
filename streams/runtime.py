"""Faust as the consumer runtime: membership, assignment and flow; everything else (positions, rows, output) is ours.

Faust's cost is per message, so it is handed whole runs: what one fetch brought of one partition is one message, its
value the list of records. Private API of a pinned Faust is used for that, and in three more places, each with a test:
the consumer seeks to the positions in SQL instead of the group's commits, the table manager (there are no tables)
starts without its fixed sleep of a second, and no directories are made for tables.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar

import faust
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from topics.cluster import REQUEST_BYTES, Cluster

BATCH = 1_000  # records: of a run, and of the runs that are folded together
ENOUGH = 250  # records that wait for no others
REST = 3  # times the processor time of a batch
LONGEST_REST_S = 0.05
RUNS = 32
YIELDS = 4

Positions = Callable[[set[TP]], Awaitable[Mapping[TP, int]]]


def _consumer_of(positions: Positions) -> type[driver.Consumer]:
    class SqlConsumer(driver.Consumer):
        async def seek_to_committed(self) -> Mapping[TP, int]:
            found = await positions(self.assignment())
            await self._thread.seek_wait(found)
            return found

        async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
            """As Faust's, run by run. What was fetched before a partition was paused is handed on as well: nobody would
            fetch it again.
            """
            fetched, _ = await self._wait_next_records(timeout)
            if fetched is None:
                return
            generation = self.app.consumer_generation_id
            if not self.flow_active:  # a rebalance began meanwhile: read again from where the rows are
                await self.perform_seek()
                return
            for tp, run in fetched.items():
                if self._is_over(generation):
                    return
                yield tp, self._to_message(tp, run)

        def _is_over(self, generation: int) -> bool:
            return self.should_stop or not self.flow_active or self.app.consumer_generation_id != generation

        def _to_message(self, tp: TP, record: Any) -> ConsumerMessage:
            last = record[-1]
            return ConsumerMessage(
                tp.topic,
                tp.partition,
                last.offset,
                last.timestamp / 1000,
                last.timestamp_type,
                headers=None,
                key=None,
                value=record,
                checksum=None,
                serialized_key_size=0,
                serialized_value_size=0,
                tp=tp,
                generation_id=self.app.consumer_generation_id,
            )

        async def verify_all_partitions_active(self) -> None:
            """Whether the worker gets on is seen by streams.watch."""

        async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
            """An offset between two runs is none that has to be acknowledged."""

        def _new_offset(self, tp: TP) -> int | None:
            """The group's commit tells only how far the worker is: runs are acknowledged in their order."""
            acked, self._acked[tp] = self._acked[tp], []
            self._acked_index[tp].clear()
            return max(acked) + 1 if acked else None

    return SqlConsumer


def consumer_app(name: str, cluster: Cluster, positions: Positions, partitions: int) -> faust.App:
    """An app in the group `name` that reads each partition from where `positions` says.

    Its events are runs: `value` is the list of aiokafka's records, `offset` the last one's. Agents are added by the
    caller; no topic of theirs may have more than `partitions`.
    """

    class SqlTransport(driver.Transport):
        Consumer: ClassVar[type[driver.Consumer]] = _consumer_of(positions)

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
        # Faust stops fetching a partition when four fifths are taken, and each may bring one more run: a full buffer
        # would hold up every other topic.
        stream_buffer_maxsize=max(RUNS, 6 * partitions),
        broker_max_poll_records=BATCH,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        web_enabled=False,
        loghandlers=[],
    )
    app._transport = SqlTransport(app.conf.broker, app, app.loop)  # noqa: SLF001 - the driver that reads positions from SQL
    return app


async def greedy(stream: Any, *, rests: bool) -> AsyncIterator[list[Any]]:
    """Batches of runs that are there; if it `rests`, of those, too, that come while the last batch's rest is not over:
    the busier, the more share a transaction, whose cost is mostly its own.

    So a lone record is folded at once, and a backlog in batches of BATCH records and up to twice that. Ends when the
    stream does, as it does when the app stops.
    """
    loop, rested = asyncio.get_running_loop(), 0.0
    events = stream.noack().events().__aiter__()

    async def following() -> Any:
        return await anext(events, None)

    waiting: asyncio.Future[Any] = asyncio.ensure_future(following())
    while (first := await waiting) is not None:
        batch, records, idle = [first], len(first.value), 0
        waiting = asyncio.ensure_future(following())
        while records < BATCH:
            if idle < YIELDS:  # the stream needs some turns for each run
                idle += 1
                await asyncio.sleep(0)
            elif rests and records < ENOUGH and (left := rested - loop.time()) > 0:
                await asyncio.wait({waiting}, timeout=left)
            else:
                break
            if waiting.done():
                if (run := waiting.result()) is None:
                    break
                batch.append(run)
                records += len(run.value)
                waiting, idle = asyncio.ensure_future(following()), 0
        began = time.process_time()
        yield batch
        rested = loop.time() + min(REST * (time.process_time() - began), LONGEST_REST_S)


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
