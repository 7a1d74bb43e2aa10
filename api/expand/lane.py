"""The way from one channel to those who share what is fetched for it: later than the log, but in its order.

A lane that grows too long is given up with all who watch it: they come back and are served at their own pace.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from api.expand.line import Fetch, Line
from api.live.frames import Frame, push
from api.tasks import must_not_fail


class Told(NamedTuple):
    """`event`: JSON text of the push's `event` member, or empty; `number`: of which record of the channel."""

    position: str
    event: str
    number: int


class Lane:
    """`tell` hands a frame to all who watch; `most`: events that may wait."""

    def __init__(self, channel: str, ahead: int, most: int, tell: Callable[[Frame, int], Awaitable[None]]) -> None:
        self._channel, self._most, self._tell = channel, most, tell
        self._line: Line[Told] = Line(ahead)
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(must_not_fail)

    def add(self, told: Told, fetch: Fetch | None) -> bool:
        """To the end; false if it is too long for that."""
        if len(self._line) >= self._most:
            return False
        self._line.put(told, fetch)
        return True

    def stop(self) -> None:
        """Tell nothing more."""
        self._task.cancel()
        self._line.clear()

    async def _run(self) -> None:
        while True:
            told, members = await self._line.next()
            await self._tell(expanded(self._channel, told.position, told.event, members), told.number)


def expanded(channel: str, position: str, event: str, members: str) -> Frame:
    """A push with what was fetched for it, if anything was."""
    return push(channel, position, f"{event},{members}" if members else event)
