"""One delivery under a lease, from the last look at the queue to its result on the log.

Nothing is tried without a look at the results and at the lease right before it; a result is said until the log has it;
and what this process knows to be accepted is never tried again by it (rule 8).
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from sender.channels.channel import Channel, Rejected, Result, RetryLater, Sent, open_channel
from sender.delivery import Delivery, clock_s
from sender.holdings import Job
from sender.message import Unreadable, message_of
from sender.metrics import Metrics
from sender.patience import Patience, outage
from sender.policy import Verdict, verdict
from sender.queue import WAITING, Fold, Look, Queue
from sender.results import result_event
from sender.settings import LEASE_MARGIN_S, SenderSettings
from topics.catalogue import DELIVERIES
from topics.produce import Producer, now_us

log = logging.getLogger(__name__)

REMEMBERED = 10_000
SEND_S = 5.0


class Attempts:
    """Makes attempts; holds the channels that are open and what was accepted."""

    def __init__(
        self, settings: SenderSettings, queue: Queue, producer: Producer, patience: Patience, metrics: Metrics
    ) -> None:
        self._settings, self._queue, self._producer = settings, queue, producer
        self._patience, self._metrics = patience, metrics
        self._channels: dict[str, Channel] = {}
        self._accepted: OrderedDict[str, tuple[int, str]] = OrderedDict()

    async def carry_out(self, job: Job, fold: Fold) -> bool:
        """Bring the delivery to a result on the log; false if it is to be left to the queue. RowsMoved, the database's
        errors.
        """
        accepted = self._accepted.get(job.delivery.delivery_id) or job.taken.accepted
        if accepted:
            job.attempt = accepted[0]
            await self.say(job, Sent(accepted[1]))
            return True
        look = await self._patience.through_outages(
            "an attempt", lambda: self._patience.sql(self._queue.look, job.delivery.delivery_id, fold)
        )
        if look.outcome != WAITING or look.attempts != job.taken.attempts:
            return False  # cancelled, or another sender was quicker
        result = await self._result(job, look)
        if result is None:
            return False
        if job.left_s <= 0:
            self._metrics.late.inc()
            if not isinstance(result, Sent) and not await self._still_mine(job):
                return False  # somebody else may be at it: only an acceptance is still worth saying
        self._count(job, result)
        log.info("attempt delivery=%s attempt=%d result=%s", job.delivery.delivery_id, job.attempt, result)
        await self.say(job, result)
        return True

    async def say(self, job: Job, result: Verdict) -> None:
        """Repeat the result until the log has it; an acceptance is noted in SQL too, for whoever comes after us."""
        event = result_event(result, job.delivery, job.attempt, producer=self._producer.name, occurred_at=now_us())
        pause = 0.1
        job.placed = None
        while job.placed is None:
            try:
                async with asyncio.timeout(SEND_S + 1):  # finding the broker is not in the producer's own limit
                    job.placed = await self._producer.send(DELIVERIES, job.delivery.user, event, timeout=SEND_S)
            except Exception as error:
                if not outage(error):
                    raise
                log.warning("a result waits for the log delivery=%s error=%r", job.delivery.delivery_id, error)
                if isinstance(result, Sent):
                    noted = self._patience.sql(
                        self._queue.note_accepted, job.delivery.delivery_id, job.attempt, result.answer
                    )
                    await self._patience.or_later("an acceptance", noted)
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)
        job.result, job.said_at = result, clock_s()

    async def close(self) -> None:
        """Close the channels."""
        for channel in self._channels.values():
            await channel.close()

    async def _result(self, job: Job, look: Look) -> Verdict | None:
        delivery, now = job.delivery, look.now
        if now >= delivery.deadline_at:
            return Rejected("the deadline was over before the message could be sent", "too_late")
        time_s = min(self._settings.attempt_s, job.left_s - LEASE_MARGIN_S)
        if time_s <= 0:
            return None
        began = clock_s()
        result = await self._deliver(delivery, time_s)
        took_s = clock_s() - began
        self._metrics.seconds.labels(self._label(delivery)).observe(took_s)
        decided = verdict(
            result,
            delivery_id=delivery.delivery_id,
            attempt=job.attempt,
            now=now + int(took_s * 1000),
            deadline_at=delivery.deadline_at,
            first_retry_ms=int(self._settings.first_retry_s * 1000),
        )
        if isinstance(decided, Sent):
            self._accepted[delivery.delivery_id] = (job.attempt, decided.answer)
            if len(self._accepted) > REMEMBERED:
                self._accepted.popitem(last=False)
        return decided

    async def _deliver(self, delivery: Delivery, time_s: float) -> Result:
        try:
            message = message_of(delivery)
        except Unreadable as error:
            return Rejected(str(error))
        try:
            channel = self._channels.get(delivery.channel) or open_channel(delivery.channel, self._settings)
            if channel is None:
                return Rejected(f"there is no channel “{delivery.channel}” here", reason="no_channel")
            self._channels[delivery.channel] = channel
            return await channel.deliver(message, time_s)
        except (
            Exception
        ) as error:  # a channel may be anybody's code: its bug is this delivery's outage, on the log and in ours
            log.exception("channel failed channel=%s delivery=%s", delivery.channel, delivery.delivery_id)
            return RetryLater(f"{type(error).__name__}: {error}")

    async def _still_mine(self, job: Job) -> bool:
        kept, good_until = await self._patience.through_outages(
            "an attempt", lambda: self._patience.sql(self._queue.renew, [job.delivery.delivery_id])
        )
        job.good_until = good_until if kept else job.good_until
        return bool(kept)

    def _count(self, job: Job, result: Verdict) -> None:
        word = result.reason if isinstance(result, Rejected) else "sent" if isinstance(result, Sent) else "retried"
        self._metrics.results.labels(self._label(job.delivery), word).inc()

    def _label(self, delivery: Delivery) -> str:
        return delivery.channel if delivery.channel in self._channels else "other"
