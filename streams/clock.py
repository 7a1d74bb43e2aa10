"""Time as an event (rule 4): finds what is due and says so on the log; the fold alone judges whether that counts.

It sleeps until the next thing is due or the fold sets something, goes by the broker's clock, as the timestamps of its
own sends tell it, and repeats whatever still waits.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from projections.forwarding import due_id
from projections.sql.waits import Wait, due, next_due
from streams.folding import Folding
from topics.catalogue import NOTICES
from topics.codec import encode
from topics.events import Due
from topics.produce import Placed, Producer, now_us

AT_MOST_EVERY_S = 0.02
AT_LEAST_EVERY_S = 1.0  # a clock may be set meanwhile
REPEAT_AFTER_S = 30.0
BATCH = 2_000
TOGETHER = 500
AHEAD = 20_000  # said, and not folded yet: no more than these are said before the fold has caught up

Name = tuple[str, str, str, str, int, int]  # user, notice, what, step, number, due_at


class Clock:
    """One per worker, for the partitions of `notices` that it owns."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._ahead_ms = 0.0  # the broker's clock minus ours
        self._said_at: dict[Name, float] = {}
        self._wake = asyncio.Event()

    def heard(self, logged_at: int, sent_at: float) -> None:
        """Something was stamped `logged_at` (ms) by the broker, between our `sent_at` (ms) and now."""
        self._ahead_ms = min(max(self._ahead_ms, logged_at - time.time() * 1000), logged_at - sent_at)

    async def run(self, folding: Folding) -> None:
        """Say what is due until cancelled; begins when the start's barrier is reached."""
        await folding.barrier.reached()
        self._wake = folding.waits_changed
        while True:
            self._wake.clear()
            until = await self._look(folding)
            if until:
                await self._rest(folding, until)

    async def _rest(self, folding: Folding, until: float) -> None:
        """Sleep until it is `until` (ms) or the fold has set something: only that changes what waits. A clock may be
        set meanwhile, and what was said and not folded is looked at again.
        """
        await asyncio.sleep(AT_MOST_EVERY_S)
        while not self._wake.is_set() and (left_ms := until - self._now_ms()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), min(left_ms / 1000, AT_LEAST_EVERY_S))
            self._ahead_ms = max(self._ahead_ms, folding.heard_ahead())
            if self._said_at:
                return

    async def _look(self, folding: Folding) -> float:
        """Say what is due and was not said; when (ms) something else can be, 0 for at once."""
        owned = [s.partition for s in folding.at if s.topic == NOTICES]
        self._ahead_ms = max(self._ahead_ms, folding.heard_ahead())
        until = int(self._now_ms())
        now = time.monotonic()
        self._said_at = {n: t for n, t in self._said_at.items() if now - t < REPEAT_AFTER_S}
        most = min(len(self._said_at), AHEAD) + BATCH

        def read() -> tuple[list[Wait], int | None]:
            with folding.store.reading() as tx:
                return due(tx, owned, until, most), next_due(tx, owned, until)

        waits, following = await folding.in_db(read)
        new = [w for w in waits if _name(w) not in self._said_at]
        for first in range(0, len(new), TOGETHER):
            await self._say(new[first : first + TOGETHER], now)
        if len(new) >= BATCH:
            return 0
        return min(following or float("inf"), self._now_ms() + REPEAT_AFTER_S * 1000)

    async def _say(self, waits: list[Wait], now: float) -> None:
        names, sent_at = [_name(w) for w in waits], time.time() * 1000
        self._said_at.update(dict.fromkeys(names, now))
        records = [(w.user, encode(self._due(w))) for w in waits]
        for numbers, future in await self._producer.enqueue_all(NOTICES, records):
            future.add_done_callback(partial(self._placed, [names[n] for n in numbers], sent_at))

    def _due(self, wait: Wait) -> Due:
        step = wait.step
        return Due(
            event_id=due_id(wait.user, wait.notice_id, step),
            producer=self._producer.name,
            occurred_at=now_us(),
            user=wait.user,
            notice_id=wait.notice_id,
            what=step.what,
            step=step.step,
            number=step.number,
            due_at=step.due_at,
        )

    def _placed(self, names: list[Name], sent_at: float, future: asyncio.Future[Placed]) -> None:
        again = names
        if not future.cancelled() and future.exception() is None:
            logged_at = future.result().timestamp
            self.heard(logged_at, sent_at)
            again = [n for n in names if logged_at < n[-1]]  # before its time, so it is ignored
            if again:
                self._wake.set()
        for name in again:
            self._said_at.pop(name, None)

    def _now_ms(self) -> float:
        return time.time() * 1000 + self._ahead_ms


def _name(wait: Wait) -> Name:
    step = wait.step
    return wait.user, wait.notice_id, step.what, step.step, step.number, step.due_at
