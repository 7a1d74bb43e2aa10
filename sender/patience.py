"""How the sender waits: for a database that is locked or away, for a broker that is away, for the next look; never past
the stop.

What is nobody's outage is a bug and is raised (rule 6).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from aiokafka.errors import KafkaError

from projections.sql.store import is_away
from topics.produce import NotOnTheLog

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
FIRST_S, LONGEST_S = 0.05, 2.0


class Stopped(RuntimeError):
    """The sender is to end."""


class Patience:
    """Runs blocking SQL in threads of its own, and repeats what an outage has stopped."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="sender-sql")

    async def sql(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """One transaction, in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))

    async def rest(self, seconds: float) -> None:
        """Wait, or raise Stopped as soon as the sender is to end."""
        try:
            await asyncio.wait_for(self.stop.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    async def through_outages(self, what: str, call: Callable[[], Awaitable[T]]) -> T:
        """The result of `call`, repeated with back-off while database or broker are away. Stopped."""
        pause = FIRST_S
        while True:
            try:
                return await call()
            except Exception as error:
                if not outage(error):
                    raise
                log.warning(
                    "%s waits for database or broker error=%s next_try_s=%.2f", what, type(error).__name__, pause
                )
            await self.rest(pause)
            pause = min(LONGEST_S, pause * 2)

    async def or_later(self, what: str, work: Awaitable[object]) -> None:
        """Do it; what an outage stops is left to the next time."""
        try:
            await work
        except Exception as error:
            if not outage(error):
                raise
            log.warning("%s waits for database or broker error=%s", what, type(error).__name__)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False)


def outage(error: BaseException) -> bool:
    """Whether waiting and trying again is right."""
    return is_away(error) or isinstance(error, KafkaError | NotOnTheLog | OSError)
