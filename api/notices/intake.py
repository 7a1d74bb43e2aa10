"""Direct notices on their way to the log, many at a time: those that come while others are being looked up, or are on
their way, go together with the next.

One question to the database and one batch a partition serve many requests, so that each costs little under load, and
a single one waits for nobody. Each is answered when all its records are acknowledged; an answer is given within
SEND_S of handing it to the producer (`log_away`: what was sent may still arrive).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from api.notices.lanes import own_lanes
from api.notices.plain import PlainNotice
from api.problems import Problem
from api.sending import SEND_S
from api.tasks import must_not_fail
from projections.fan_out import direct_notices, raised_for, told_of
from projections.sql.views import recipients
from topics.catalogue import NOTICES
from topics.codec import encode, remember
from topics.events import Lane, NoticeRaised, NoticeRequested
from topics.ids import direct_notice_id
from topics.partition import partition_of
from topics.produce import NotOnTheLog, now_us

if TYPE_CHECKING:
    from api.gateway import Gateway

log = logging.getLogger(__name__)
AT_A_TIME = 500
YIELD_AFTER = 100
LOOK_ROUND_S = 1.0
TOGETHER_S = 0.05


class Said(NamedTuple):
    """`ids`: user to the id of that user's notice; the offsets on `topic` that follow what was said."""

    ids: dict[str, str]
    following: dict[int, int]
    topic: str = NOTICES


Answer = Callable[[Said | Problem], None]


class _Errand:
    """What one request has on its way: `left` records without an acknowledgement."""

    __slots__ = ("answer", "following", "give_up", "ids", "left")

    def __init__(self, ids: dict[str, str], left: int, give_up: float, answer: Answer) -> None:
        self.ids, self.left, self.give_up = ids, left, give_up
        self.answer: Answer | None = answer
        self.following: dict[int, int] = {}

    def end(self, what: Said | Problem) -> None:
        """Answer, once."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer(what)

    def landed(self, partition: int, offset: int) -> None:
        """One record stands."""
        self.following[partition] = max(self.following.get(partition, 0), offset + 1)
        self.left -= 1
        if not self.left:
            self.end(Said(self.ids, self.following))


_Waiting = tuple[tuple[bytes, bytes], _Errand]


class Intake:
    """One for a gateway; used in its event loop only."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._asked: deque[tuple[PlainNotice, str, str, Answer]] = deque()
        self._waiting: defaultdict[int, list[_Waiting]] = defaultdict(list)
        self._on_way: dict[int, asyncio.Task[None]] = {}
        self._going: asyncio.Task[None] | None = None
        self._open: deque[_Errand] = deque()
        self._looks: asyncio.TimerHandle | None = None

    # ---- what is asked of it
    def offer(self, notice: PlainNotice, subject: str, request_key: str, answer: Answer) -> None:
        """Say `notice` of `subject`, forwarded to its users' own addresses. `answer` is called once."""
        self._asked.append((notice, subject, request_key, answer))
        self._begin()

    def say(self, raised: Sequence[NoticeRaised], answer: Answer) -> None:
        """Put notices on the log, from which this gateway reads them, too. `answer` is called once."""
        gateway, give_up = self._gateway, time.monotonic() + SEND_S
        values = [encode(e) for e in raised]
        errand = _Errand({e.user: e.notice_id for e in raised if e.inbox}, len(values), give_up, answer)
        watches, partitions = gateway.inboxes.watches, gateway.live.partitions(NOTICES)
        for event, value in zip(raised, values, strict=True):
            key = event.user.encode()
            if watches(key):
                remember(value, event)
            self._waiting[partition_of(event.user, partitions)].append(((key, value), errand))
        self._begin()
        self._open.append(errand)
        if self._looks is None:
            self._looks = asyncio.get_running_loop().call_later(LOOK_ROUND_S, self._look_round)

    def stop(self) -> None:
        """Nothing is sent any longer."""
        for task in (self._going, *self._on_way.values()):
            if task is not None:
                task.cancel()
        if self._looks is not None:
            self._looks.cancel()

    # ---- their forwards
    def _begin(self) -> None:
        if self._going is None:
            self._going = asyncio.get_running_loop().create_task(self._go_round())
            self._going.add_done_callback(must_not_fail)

    async def _go_round(self) -> None:
        """Round after round: what was asked is looked up together and goes to the broker together, a batch for each
        partition. The next round begins with the acknowledgements, so the busier the log, the more go at once; but it
        does not wait for long, for one partition's leader may be away.
        """
        while self._asked or self._waiting:
            await self._look_up([self._asked.popleft() for _ in range(min(AT_A_TIME, len(self._asked)))])
            for partition in self._waiting.keys() - self._on_way.keys():
                self._on_way[partition] = asyncio.create_task(self._carry(partition, self._waiting.pop(partition)))
            if self._on_way:
                await asyncio.wait(list(self._on_way.values()), timeout=TOGETHER_S)
        self._going = None

    async def _look_up(self, asked: list[tuple[PlainNotice, str, str, Answer]]) -> None:
        users = {user for notice, *_ in asked for user in notice.users}
        try:
            bodies = await self._gateway.database.read(recipients.bodies, users) if users else {}
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the log says why
            for *_, answer in asked:
                answer(_problem(error))
            return
        for count, each in enumerate(asked):
            if count % YIELD_AFTER == YIELD_AFTER - 1:
                await asyncio.sleep(0)
            try:
                self._raise(*each, bodies)
            except Exception as error:  # noqa: BLE001 - whoever asked is told, and the log says why
                each[-1](_problem(error))

    def _raise(
        self, notice: PlainNotice, subject: str, request_key: str, answer: Answer, bodies: dict[str, str]
    ) -> None:
        gateway = self._gateway
        lanes: tuple[Lane, ...] = ()
        if bodies and (mine := {user: bodies[user] for user in notice.users if user in bodies}):
            lanes = own_lanes(mine, gateway.settings.channels, round(gateway.settings.forward_after * 1000))
        source = {"producer": gateway.producer.name, "occurred_at": now_us(), "caused_by": ()}
        raised = [
            raised_for(
                told,
                source,
                direct_notice_id(subject, request_key, told[0]),
                kind="direct",
                alert=None,
                config_id=None,
                key=None,
                entity=(notice.entity_type, notice.entity_id),
                severity=notice.severity,
                forward="",
                body=notice.body,
            )
            for told in told_of(notice.users, lanes)
        ]
        self.say(raised, answer)

    # ---- to the log
    async def _carry(self, partition: int, waiting: list[_Waiting]) -> None:
        """To one partition, as much as a batch takes."""
        group = [w for w in waiting if w[1].answer is not None]
        try:
            if group:
                taken, first = await self._gateway.producer.enqueue_group(NOTICES, partition, [r for r, _ in group])
                if taken < len(group):
                    self._waiting[partition] = group[taken:] + self._waiting.pop(partition, [])
                    del group[taken:]
                placed = await first
                for index, (_, errand) in enumerate(group):
                    errand.landed(placed.partition, placed.offset + index)
        except Exception as error:  # noqa: BLE001 - whoever asked is told, and the log says why
            problem = _problem(error)
            for _, errand in group:
                errand.end(problem)
        finally:
            del self._on_way[partition]

    def _look_round(self) -> None:
        """Nobody is left without an answer for long."""
        now = time.monotonic()
        while self._open and (self._open[0].answer is None or self._open[0].give_up <= now):
            if (errand := self._open.popleft()).answer is not None:
                errand.end(Problem("log_away"))
        left = {p: [w for w in waiting if w[1].answer is not None] for p, waiting in self._waiting.items()}
        self._waiting = defaultdict(list, {p: waiting for p, waiting in left.items() if waiting})
        self._looks = None
        if self._open:
            self._looks = asyncio.get_running_loop().call_later(LOOK_ROUND_S, self._look_round)


def _problem(error: Exception) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, NotOnTheLog):
        return Problem("too_large", "The log takes no record of this size.") if error.final else Problem("log_away")
    log.error("a direct notice could not be said error=%s", type(error).__name__, exc_info=error)
    return Problem("internal")


def raised_by(asked: NoticeRequested) -> list[NoticeRaised]:
    """The notices that a direct request asks for, with nothing on the log before them."""
    source = {"producer": asked.producer, "occurred_at": asked.occurred_at, "caused_by": ()}
    return direct_notices(asked, source)
