"""A role starts when the log is there: `topics apply` has made every topic and written the first record of each
partition.

Nobody may write before that record: it names the log, and a log that begins with anything else belongs to nobody.
"""

from __future__ import annotations

import asyncio
import itertools
import logging

from aiokafka.errors import KafkaError

from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.fetch import LogReader, reading

AGAIN_S = 0.1
SLOWLY_S = 1.0
log = logging.getLogger(__name__)


async def opened(cluster: Cluster, catalogue: Catalogue, stop: asyncio.Event) -> bool:
    """Wait until the log is there; false if the stop came first."""
    looking = asyncio.ensure_future(_look(cluster, catalogue))
    stopped = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait({looking, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return looking.done() and looking.result()
    finally:
        looking.cancel()
        stopped.cancel()
        await asyncio.gather(looking, stopped, return_exceptions=True)


async def _look(cluster: Cluster, catalogue: Catalogue) -> bool:
    told: str | None = None
    for attempt in itertools.count():
        try:
            async with asyncio.timeout(10), reading(cluster, catalogue) as reader:
                missing = await _missing(reader, catalogue)
        except KafkaError as error:
            missing = f"the broker ({type(error).__name__})"
        except TimeoutError:  # the client waits for ever for a partition that isn't there
            missing = (
                f"{catalogue.partitions} partitions of each topic, or an answer about them: see `tidings topics list`"
            )
        if missing is None:
            break
        if missing != told and attempt * AGAIN_S >= SLOWLY_S:
            log.warning("waiting for=%r", missing)
            told = missing
        await asyncio.sleep(AGAIN_S if attempt < 100 else SLOWLY_S)
    return True


async def _missing(reader: LogReader, catalogue: Catalogue) -> str | None:
    """What is not there yet, for people."""
    present = await reader.consumer.topics()
    for name in catalogue.topics():
        if catalogue.physical(name) not in present:
            return f"topic {name}: run `tidings topics apply`"
    ends = await reader.ends(reader.spots(catalogue.topics()))
    unopened = [spot for spot, end in ends.items() if end == 0]
    return f"the first record of {unopened[0].topic}: run `tidings topics apply`" if unopened else None
