"""The read models, asked from threads of their own: a query never holds up the event loop.

Every query is one REPEATABLE READ transaction. While the database is locked or away the question is asked again, for
a bounded time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

from api.problems import Problem
from projections.sql.store import Store, is_away
from projections.sql.views.positions import holds

log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")
THREADS = 4
PATIENCE_S = 5.0


class Database:
    """Runs the queries of `projections.sql.views`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="sql")

    def close(self) -> None:
        """Let running queries end and give the connections back."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._store.close()

    async def read(self, query: Callable[Concatenate[Any, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The answer of `query(tx, …)`. Problem `store_away` after 5 s without a database."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + PATIENCE_S, 0.02

        def run() -> R:
            with self._store.reading() as tx:
                return query(tx, *args, **kwargs)

        while True:
            try:
                return await loop.run_in_executor(self._pool, run)
            except Exception as error:
                if not is_away(error):
                    raise
                if loop.time() + pause > give_up:
                    log.warning("database away error=%s", type(error).__name__)
                    raise Problem("store_away") from error
            await asyncio.sleep(pause)
            pause = min(pause * 2, 0.5)

    async def reaches(self, topic: str, following: Mapping[int, int], seconds: float, *, answers: bool) -> bool:
        """Wait until the rows hold everything of `topic` before these offsets; with `answers` what came of it too."""
        return await self.until(lambda: self.read(holds, topic, following, answers=answers), seconds) is not None

    async def until(self, ask: Callable[[], Any], seconds: float) -> Any:
        """Ask again, from 5 up to 100 ms apart, until the answer is neither false nor null; null in the end."""
        loop = asyncio.get_running_loop()
        give_up, pause = loop.time() + seconds, 0.005
        while True:
            found = await ask()
            if found:
                return found
            if loop.time() + pause > give_up:
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.1)
