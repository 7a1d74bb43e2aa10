"""The embedded broker under `tidings up`: started beside the event loop, watched, and started again when it dies.

Acknowledged records survive its death, and every role waits for it, so that a new start is all that is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from broker.embedded import BrokerError, EmbeddedBroker
from tidings.daemon_thread import in_daemon_thread
from tidings.restarts import Record

LOOK_EVERY_S = 0.25


class BrokerKeeper:
    """`start`, then `keep` until `stop`; `tell` gets a line for people."""

    def __init__(self, data_dir: Path, *, tell: Callable[[str], None], changed: Callable[[], None]) -> None:
        self._broker = EmbeddedBroker(data_dir)
        self._tell, self._changed = tell, changed
        self._starting: asyncio.Future[None] | None = None

    @property
    def bootstrap(self) -> str:
        """Where clients find it, from `launch` on; the same ever after."""
        return self._broker.bootstrap

    @property
    def pid(self) -> int | None:
        """The JVM, while it runs."""
        return self._broker.pid if self._broker.alive() else None

    async def launch(self) -> None:
        """Start it; from here on its address is known. BrokerError."""
        await self._in_thread(self._broker.launch)
        self._changed()

    async def ready(self) -> None:
        """Wait until it serves. BrokerError."""
        await self._in_thread(lambda: self._broker.wait_ready(60))

    async def keep(self) -> None:
        """Watch it, for ever."""
        record = Record()
        while True:
            began = asyncio.get_running_loop().time()
            while self._broker.alive():  # noqa: ASYNC110 - the death of a process that another thread started is no event
                await asyncio.sleep(LOOK_EVERY_S)
            record, pause = record.after(1, asyncio.get_running_loop().time() - began)
            self._tell(f"{self._broker.failure()}; starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            with suppress(BrokerError):  # told by the next round, from the same words
                await self._in_thread(self._broker.start)
                self._changed()

    async def stop(self, seconds: float) -> None:
        """Stop it in order; one that is still starting is ended at once, for there is nothing in it to close."""
        while self._starting is not None and not self._starting.done():
            self._broker.kill()
            await asyncio.wait({self._starting}, timeout=0.1)
        await in_daemon_thread(lambda: self._broker.stop(seconds))

    def kill(self) -> None:
        """SIGKILL, now."""
        self._broker.kill()

    async def _in_thread(self, work: Callable[[], None]) -> None:
        self._starting = in_daemon_thread(work)
        await asyncio.shield(self._starting)
