"""Reading history for requests: a reader of its own for each, few at a time, and each for a limited time, so that
whoever asks for much does not slow down those who wait for what is new.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.errors import KafkaError
from starlette.requests import Request

from api.problems import Problem
from topics.catalogue import Catalogue
from topics.cluster import REQUEST_BYTES, Cluster
from topics.codec import UnknownSchema
from topics.read import HistoryReader, MissingTopics

READERS = 2
TURN_S = 5.0
READ_S = 30.0


class Archive:
    """At most two read at a time; the others wait for 5 s."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue) -> None:
        self._cluster, self._catalogue = cluster, catalogue
        self._turns = asyncio.Semaphore(READERS)

    @asynccontextmanager
    async def reading(self, seconds: float = READ_S, piece: int = REQUEST_BYTES) -> AsyncIterator[HistoryReader]:
        """A reader for at most `seconds`, that fetches at most `piece` bytes of a partition at a time.

        Problem `busy`, `takes_too_long`, `log_away`.
        """
        try:
            await asyncio.wait_for(self._turns.acquire(), TURN_S)
        except TimeoutError as error:
            raise Problem("busy") from error
        reader = HistoryReader(self._cluster, self._catalogue, piece)
        try:
            async with asyncio.timeout(seconds):
                await reader.start()
                yield reader
        except TimeoutError as error:
            raise Problem("takes_too_long", f"It could not be read within {seconds:g} s.") from error
        except (KafkaError, MissingTopics, UnknownSchema) as error:
            raise Problem("log_away") from error
        finally:
            self._turns.release()
            await reader.stop()


def archive_of(request: Request) -> Archive:
    """The archive of the gateway that serves this request."""
    found: Archive = request.app.state.archive
    return found
