"""Time as an event (rule 4): finds what is due and says so on the log; the fold alone judges whether that counts.

It goes by the broker's clock, as the timestamps of its own sends tell it, and repeats whatever still waits.
"""

from __future__ import annotations

import asyncio
import logging
import time

from projections.forwarding import due_id
from projections.sql.waits import Wait, due
from streams.folding import Folding
from topics.catalogue import NOTICES
from topics.events import Due
from topics.produce import Placed, Producer, now_us

log = logging.getLogger(__name__)

LOOK_EVERY_S = 0.1
REPEAT_AFTER_S = 30.0
BATCH = 2_000


class Clock:
    """One per worker, for the partitions of `notices` that it owns."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._ahead_ms = 0.0  # the broker's clock minus ours
        self._said_at: dict[str, float] = {}

    async def run(self, folding: Folding) -> None:
        """Say what is due until cancelled; begins when the start's barrier is reached."""
        await folding.barrier.reached()
        while True:
            owned = [s.partition for s in folding.at if s.topic == NOTICES]
            self._ahead_ms = max(self._ahead_ms, folding.heard_ahead())
            until = int(time.time() * 1000 + self._ahead_ms)

            def read(owned: list[int] = owned, until: int = until) -> list[Wait]:
                with folding.store.reading() as tx:
                    return due(tx, owned, until, BATCH)

            waits = await folding.in_db(read) if owned else []
            now = time.monotonic()
            new = [w for w in waits if await self._say(w, now)]
            self._said_at = {i: t for i, t in self._said_at.items() if now - t < REPEAT_AFTER_S}
            await asyncio.sleep(0 if len(new) == BATCH else LOOK_EVERY_S)

    async def _say(self, wait: Wait, now: float) -> bool:
        step = wait.step
        identity = due_id(wait.user, wait.notice_id, step)
        if now - self._said_at.get(identity, -REPEAT_AFTER_S) < REPEAT_AFTER_S:
            return False
        self._said_at[identity] = now
        event = Due(
            event_id=identity,
            producer=self._producer.name,
            occurred_at=now_us(),
            user=wait.user,
            notice_id=wait.notice_id,
            what=step.what,
            step=step.step,
            number=step.number,
            due_at=step.due_at,
        )
        sent_at = time.time() * 1000
        future = await self._producer.enqueue(NOTICES, wait.user, event)
        future.add_done_callback(lambda f: self._placed(identity, step.due_at, sent_at, f))
        return True

    def _placed(self, identity: str, due_at: int, sent_at: float, future: asyncio.Future[Placed]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._said_at.pop(identity, None)
            return
        logged_at = future.result().timestamp  # between our sending and our hearing of it
        self._ahead_ms = min(max(self._ahead_ms, logged_at - time.time() * 1000), logged_at - sent_at)
        if logged_at < due_at:  # before its time, so it is ignored: again, now by the broker's clock
            self._said_at.pop(identity, None)
