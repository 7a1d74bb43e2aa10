"""The deliveries that this sender has the lease on, until their results have been read back from the rows.

A lease is renewed while the process lives; what was renewed too late belongs to somebody else.
"""

from __future__ import annotations

from dataclasses import dataclass

from sender.delivery import Delivery, Taken, clock_s
from sender.patience import Patience
from sender.policy import Verdict
from sender.queue import Queue
from topics.produce import Placed

SWEEP_S = 10.0
SAY_AGAIN_S = 30.0  # rule 3: what the rows have passed and do not hold was lost by the log


@dataclass(slots=True)
class Job:
    """A delivery under this sender's lease. `result` and `placed` are there once it is on the log."""

    taken: Taken
    good_until: float
    attempt: int
    result: Verdict | None = None
    placed: Placed | None = None
    said_at: float = 0.0

    @property
    def delivery(self) -> Delivery:
        """What is to be delivered."""
        return self.taken.delivery

    @property
    def left_s(self) -> float:
        """Of the lease."""
        return self.good_until - clock_s()

    @property
    def said_s(self) -> float:
        """Since the result was on the log."""
        return clock_s() - self.said_at


class Holdings:
    """`jobs` by delivery id."""

    def __init__(self, queue: Queue, patience: Patience, lease_s: float) -> None:
        self._queue, self._patience, self._lease_s = queue, patience, lease_s
        self.jobs: dict[str, Job] = {}
        self._renew_at = self._sweep_at = 0.0

    async def look_after(self, *, complete: bool) -> list[Job]:
        """One round: let go, renew, and (while the rows are `complete`) sweep. Returns what has to be said again."""
        lost: list[Job] = []
        await self._patience.or_later("a lease", self._read_back(lost))
        if self.jobs and clock_s() >= self._renew_at:
            await self._patience.or_later("a lease", self._renew())
            self._renew_at = clock_s() + self._lease_s / 5
        if complete and clock_s() >= self._sweep_at:
            await self._patience.or_later("a sweep", self._patience.sql(self._queue.sweep))
            self._sweep_at = clock_s() + SWEEP_S
        return lost

    async def _read_back(self, lost: list[Job]) -> None:
        """Leases go whose results the rows hold."""
        said = {i: job for i, job in self.jobs.items() if job.placed is not None}
        if not said:
            return
        done, reached = await self._patience.sql(self._queue.folded, {i: job.attempt for i, job in said.items()})
        if done:
            await self._patience.sql(self._queue.drop, done)
        for i, job in said.items():
            if i in done:
                self.jobs.pop(i, None)
            elif job.placed and reached.get(job.placed.partition, 0) > job.placed.offset and job.said_s > SAY_AGAIN_S:
                job.placed = None
                lost.append(job)

    async def _renew(self) -> None:
        ids = list(self.jobs)
        kept, good_until = await self._patience.sql(self._queue.renew, ids)
        for i in ids:
            job = self.jobs.get(i)
            if job is None:
                continue
            job.good_until = good_until if i in kept else clock_s()
            if i not in kept and job.placed is not None:
                self.jobs.pop(i)  # its result is on the log: whoever took it over will read it there
