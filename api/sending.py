"""Sending to the log for a client: acknowledged within a bounded time, or told that it is not known."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from api.problems import Problem
from topics.events import Event
from topics.produce import NotOnTheLog, Placed

if TYPE_CHECKING:
    from api.gateway import Gateway

SEND_S = 10


async def put(gateway: Gateway, topic: str, key: str, event: Event) -> Placed:
    """One event on the log. Problem `log_away`, or `too_large` if the broker will never take it."""
    return await landed(await begin(gateway, topic, key, event))


async def writable(gateway: Gateway) -> None:
    """Wait until the log is open for writing. Problem `log_away`."""
    if not gateway.writable.is_set():
        try:
            await asyncio.wait_for(gateway.writable.wait(), SEND_S)
        except TimeoutError as error:
            raise Problem("log_away") from error


async def begin(gateway: Gateway, topic: str, key: str, event: Event) -> asyncio.Future[Placed]:
    """Hand it to the producer, which keeps the order of these calls. Problem `log_away`."""
    try:
        async with asyncio.timeout(SEND_S):
            await gateway.writable.wait()
            return await gateway.producer.enqueue(topic, key, event)
    except (TimeoutError, KafkaError) as error:
        raise Problem("log_away") from error


async def landed(sent: asyncio.Future[Placed]) -> Placed:
    """Where it stands. Problem as `put`."""
    try:
        return await asyncio.wait_for(asyncio.shield(sent), SEND_S)
    except TimeoutError as error:
        raise Problem("log_away") from error
    except NotOnTheLog as error:
        if error.final:
            raise Problem("too_large", "The log takes no record of this size.") from error
        raise Problem("log_away") from error
