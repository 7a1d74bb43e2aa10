"""Everything that goes wrong, at moments that a seed gives: each kind in a lane of its own, all lanes at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

from sqlalchemy.exc import DBAPIError

from projections.sql.store import is_away, wipe
from tests.chaos.roles import Role
from tests.chaos.shape import Shape
from tests.chaos.site import Site

Lane = Callable[[], Coroutine[Any, Any, None]]
OFF_S: dict[float, float] = {0: 300, 300: -300, -300: 0}  # what follows what


class Faults:
    """The faults of one run; `seen` counts them."""

    def __init__(self, site: Site, shape: Shape, rng: random.Random) -> None:
        self._site, self._shape = site, shape
        self._dice = {lane.__name__: random.Random(rng.random()) for lane in self._lanes()}
        self._over = asyncio.Event()
        self._rows = asyncio.Lock()  # a database is locked, down or replaced, one after the other
        self.seen: Counter[str] = Counter()

    def _lanes(self) -> list[Lane]:
        return [self._kills, self._freezes, self._broker, self._database, self._members, self._copies, self._rebuilds]

    async def run(self) -> None:
        """Until `shape.flow_s` is over; a fault that has begun ends first."""
        async with asyncio.TaskGroup() as lanes:
            for lane in self._lanes():
                if lane.__name__.strip("_") in self._shape.pauses_s:
                    lanes.create_task(self._again_and_again(lane))
            await asyncio.sleep(self._shape.flow_s)
            self._over.set()

    async def heal(self) -> None:
        """No faults, right clocks, and all processes started anew if their clock was wrong."""
        async with self._site.supervised:
            for role in self._site.roles.values():
                role.wanted = True
                if role.off_s:
                    role.off_s = 0
                    await asyncio.to_thread(role.stop)

    async def _again_and_again(self, lane: Lane) -> None:
        pause = self._shape.pauses_s[lane.__name__.strip("_")]
        dice = self._dice[lane.__name__]
        while not await self._rest(dice.uniform(0.3, 1.7) * pause):
            await lane()

    async def _rest(self, seconds: float) -> bool:
        """A pause; true if the run is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return self._over.is_set()

    # ------------------------------------------------------------------ processes
    async def _kills(self) -> None:
        role = self._next(self._dice["_kills"], lambda r: len(r.kills))
        async with self._site.supervised:
            await asyncio.to_thread(role.kill)
        self.seen[f"kill -9 of a {role.command[0]}"] += 1

    async def _freezes(self) -> None:
        dice = self._dice["_freezes"]
        role = self._next(dice, lambda r: self.seen[f"freeze of a {r.command[0]}"])
        process, since = role.freeze(), time.time()
        if process is not None:
            await asyncio.sleep(dice.uniform(*self._shape.freeze_s))
            role.thaw(process, since)
            self.seen[f"freeze of a {role.command[0]}"] += 1

    def _next(self, dice: random.Random, times: Callable[[Role], int]) -> Role:
        """One of those that had it least: who is killed at each start is seldom killed at work."""
        running = [r for r in self._site.roles.values() if r.wanted and not r.frozen]
        fewest = min(map(times, running))
        return dice.choice([r for r in running if times(r) == fewest])

    async def _members(self) -> None:
        """One of the two workers leaves in order, and joins again with a clock that is wrong, or right once more."""
        dice, role = self._dice["_members"], self._site.roles["worker-2"]
        role.wanted = False
        await asyncio.to_thread(role.stop)
        await self._rest(dice.uniform(1, 3))
        role.off_s = OFF_S[role.off_s]
        role.wanted = True
        self.seen["a worker left and joined"] += 1
        self.seen["of these with a clock 5 min off"] += bool(role.off_s)

    # ------------------------------------------------------------------ broker
    async def _broker(self) -> None:
        dice, broker = self._dice["_broker"], self._site.broker
        if self.seen["broker killed"] <= self.seen["broker frozen"]:
            await asyncio.to_thread(broker.kill)
            await asyncio.sleep(self._shape.broker_down_s)
            await asyncio.to_thread(broker.start, 60)
            self.seen["broker killed"] += 1
        else:
            os.kill(broker.pid, signal.SIGSTOP)
            await asyncio.sleep(dice.uniform(*self._shape.freeze_s))
            os.kill(broker.pid, signal.SIGCONT)
            self.seen["broker frozen"] += 1

    # ------------------------------------------------------------------ database
    async def _database(self) -> None:
        database, seconds = self._site.database, self._shape.database_down_s
        async with self._rows:
            if self.seen["database locked"] <= self.seen["database down"] or not await asyncio.to_thread(database.down):
                with await asyncio.to_thread(_entered, database.locked()):
                    await asyncio.sleep(seconds)
                self.seen["database locked"] += 1
            else:
                await asyncio.sleep(seconds)
                await asyncio.to_thread(database.up)
                self.seen["database down"] += 1

    async def _copies(self) -> None:
        """A copy is kept; later it is put back; then the rows are wiped under everybody's hands; and so on."""
        turn = sum(self.seen[name] for name in ("copy kept", "old copy put back", "rows wiped")) % 3
        async with self._rows:
            if turn == 2:
                self.seen["rows wiped"] += await asyncio.to_thread(self._wipe)
                return
            async with self._site.supervised:
                for role in self._site.roles.values():
                    if role.command[0] != "wrapper":
                        await asyncio.to_thread(role.kill)
                self._site.store.close()
                await asyncio.to_thread(self._site.database.put_back if turn else self._site.database.copy)
            self.seen["old copy put back" if turn else "copy kept"] += 1

    def _wipe(self) -> int:
        for _ in range(60):  # a frozen worker may hold the database for longer than one try waits
            try:
                with self._site.store.writing() as tx:
                    wipe(tx)
            except DBAPIError as error:
                if not is_away(error):
                    raise
            else:
                return 1
        return 0

    async def _rebuilds(self) -> None:
        """`tidings rebuild` beside all that. It may give up when its database or broker goes; it may not do harm."""
        code = await self._site.command("rebuild", self._shape.rebuild_s)
        self.seen["rebuilds that finished" if code == 0 else "rebuilds cut short"] += 1


def _entered(lock: contextlib.AbstractContextManager[None]) -> contextlib.ExitStack:
    stack = contextlib.ExitStack()
    stack.enter_context(lock)
    return stack
