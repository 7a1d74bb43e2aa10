"""Every start first folds to the ends noted at that start, outputs and dead letters included (rule 2).

Before that nothing is decided, relayed or said by the clock: so an empty, an old and a current database start in the
same way, and nothing is said twice.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from projections.sql.store import next_offsets
from topics.catalogue import DEAD_LETTERS
from topics.fetch import Spot

if TYPE_CHECKING:
    from streams.folding import Folding


class Barrier:
    """The ends noted at the start. Positions are read from SQL: other workers fold their share."""

    def __init__(self, ends: dict[Spot, int]) -> None:
        self._ends = ends
        self._reached = asyncio.Event()
        self._dead_letters = asyncio.Event()

    @property
    def topics(self) -> list[str]:
        """All topics that are folded."""
        return list(dict.fromkeys(s.topic for s in self._ends))

    @property
    def ready(self) -> bool:
        """Whether the start is over."""
        return self._reached.is_set()

    async def check(self, folding: Folding) -> bool:
        """Look at the positions; true once the barrier is reached."""
        if not self.ready:

            def read() -> dict[tuple[str, int], int]:
                with folding.store.reading() as tx:
                    return next_offsets(tx)

            found = await folding.in_db(read)
            missing = [s for s, end in self._ends.items() if found.get(s, 0) < end]
            if not [s for s in missing if s.topic == DEAD_LETTERS]:
                self._dead_letters.set()
            if not missing:
                self._reached.set()
        return self.ready

    async def dead_letters_read(self, folding: Folding) -> None:
        """Wait until what was skipped before is known to be skipped."""
        if not self._dead_letters.is_set():
            await self.check(folding)
            await self._dead_letters.wait()

    async def reached(self) -> None:
        """Wait for the end of the start."""
        await self._reached.wait()
