"""Things that wait for a backend's answer, in their order: some are asked for ahead of their turn, none overtakes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Fetch = Callable[[], Coroutine[Any, Any, str]]


class _Waiting(Generic[T]):
    __slots__ = ("fetch", "task", "thing")

    def __init__(self, thing: T, fetch: Fetch | None) -> None:
        self.thing, self.fetch = thing, fetch
        self.task: asyncio.Task[str] | None = None

    def begin(self) -> None:
        if self.fetch is not None and self.task is None:
            self.task = asyncio.create_task(self.fetch())


class Line(Generic[T]):
    """First in, first out. At most `ahead` answers are fetched, or wait for their turn, at a time."""

    def __init__(self, ahead: int) -> None:
        self._ahead = ahead
        self._waiting: deque[_Waiting[T]] = deque()
        self._more = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether another one would not be fetched ahead."""
        return len(self._waiting) >= self._ahead

    def put(self, thing: T, fetch: Fetch | None) -> None:
        """To the end; `fetch` null: it waits for nothing but its turn."""
        waiting = _Waiting(thing, fetch)
        if not self.full:
            waiting.begin()
        self._waiting.append(waiting)
        self._more.set()

    async def next(self) -> tuple[T, str]:
        """The first and what was fetched for it (else an empty text); waits for one to come."""
        while not self._waiting:
            self._more.clear()
            await self._more.wait()
        first = self._waiting[0]
        found = await first.task if first.task is not None else ""
        self._waiting.popleft()
        if self.full:
            self._waiting[self._ahead - 1].begin()
        return first.thing, found

    def clear(self) -> None:
        """Forget all that wait."""
        for waiting in self._waiting:
            if waiting.task is not None:
                waiting.task.cancel()
        self._waiting.clear()
