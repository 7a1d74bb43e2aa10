"""The one group-less reader of a gateway: every partition of `notices` and of the entity topics, in log order, to
those who fold them.

Between two records everything that hangs on it is consistent: a record is folded, and its frames are handed out,
before the position moves on. When the log is another one (rule 7) everything is begun anew.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

from aiokafka.errors import KafkaError

from api.live.position import BadPosition, Position, decode, encode, epoch_of
from api.metrics import Metrics
from api.problems import Problem
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.codec import UnknownSchema, event_name
from topics.events import Record
from topics.fetch import Broken, LogReader, Spot, patiently, reading, to_record, waiting_for_schema
from topics.fetch_link import Message
from topics.follow import Follower, following

log = logging.getLogger(__name__)
Take = Callable[[Record | Broken], Awaitable[None]]
Begin = Callable[[], Awaitable[dict[Spot, int]]]
Wanted = Callable[[str, bytes | None], bool]  # of a topic and a key
YIELD_AFTER = 100
FEW = 8  # records that are hardly for the same people
EPOCH_CHECK_S = 60.0
STUCK_S = 2.0
SILENT_S = 5.0  # without a word from the broker, which otherwise says every 0.5 s where the log ends
LATE_S = 5.0


class AnotherLog(RuntimeError):
    """The topics or the rows were made anew: nothing that was loaded holds any more."""


def unread(heard: Iterable[tuple[int, float, int]], seconds: float, age: float) -> str | None:
    """Why a reader that has read for so many `seconds` is not up to date; null if it is. For each partition: its end as
    the broker last said, when that was (s since 1970), and the reader's position. `age` (s): of the newest record when
    it had been taken.
    """
    ends, times, positions = zip(*heard, strict=True)
    silent = min(seconds, time.time() - min(times))
    if silent > SILENT_S:
        return f"the broker, which has been silent for {silent:.0f} s"
    behind = sum(max(0, end - n) for end, n in zip(ends, positions, strict=True))
    return f"{behind} records that were not read in time" if behind and age > LATE_S else None


class LiveLog:
    """`followed` are read; of `known` (more topics) only the epoch is known, for the positions of writes."""

    def __init__(
        self, cluster: Cluster, catalogue: Catalogue, followed: Iterable[str], known: Iterable[str], metrics: Metrics
    ) -> None:
        self._cluster, self._catalogue, self._metrics = cluster, catalogue, metrics
        self.followed = tuple(followed)
        self.known = (*self.followed, *known)
        self.positions: dict[Spot, int] = {}
        self.opened: dict[Spot, str] = {}
        self.caught_up = False
        self._read = {topic: metrics.records.labels(topic).inc for topic in self.followed}
        self._partitions = {name: topic.partitions for name, topic in catalogue.topics().items()}
        self._epochs: dict[str, bytes] = {}
        self._noted: dict[Spot, int] = {}
        self._moved = asyncio.Event()
        self._busy_since: float | None = None
        self.few = False  # records came together with the one that is being taken
        self._anew = False
        self._follower: Follower | None = None
        self._since = 0.0  # s since 1970
        self._age = 0.0  # s, of the newest record when it had been taken

    # ---- what is asked of it
    def waits_for(self) -> str | None:
        """Why what it has read is not what stands on the log; null if it is, but for what comes at this moment."""
        if not self.opened:
            return "topics"
        if self._follower is None or not self.caught_up:
            return "the log, which is read up to where it ended at the start"
        if waiting_for_schema:
            return f"schemas {', '.join(sorted(waiting_for_schema))}"
        if self._busy_since is not None and time.monotonic() - self._busy_since > STUCK_S:
            return "a record that takes long"
        heard = [(*self._follower.ends_heard(s), n) for s, n in self.positions.items()]
        return unread(heard, time.time() - self._since, self._age)

    def has_come_to_the_end(self, topic: str) -> bool:
        """Whether all of a followed topic has been read that stood there at the start."""
        return bool(self._noted) and all(
            self.positions.get(s, 0) >= n for s, n in self._noted.items() if s.topic == topic
        )

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        return self._partitions[topic]

    def vector(self, topic: str) -> dict[int, int]:
        """The next offset of each partition of a followed topic."""
        return {p: self.positions.get(Spot(topic, p), 0) for p in range(self.partitions(topic))}

    def token(self, topic: str, following: Mapping[int, int]) -> str:
        """A position as clients hold it. Problem `not_ready` before the log's epoch is known."""
        if topic not in self._epochs:
            raise Problem("not_ready")
        return encode(self._epochs[topic], following)

    def knows(self, topic: str) -> bool:
        """Whether positions of the topic can be given."""
        return topic in self._epochs

    def understood(self, token: str, topics: Iterable[str]) -> tuple[str, Position]:
        """A client's token and which of `topics` it belongs to. Problem `bad_position`, `position_lost`."""
        if not self._epochs:
            raise Problem("not_ready")
        try:
            found = decode(token)
        except BadPosition as error:
            raise Problem("bad_position", f"This is no position: {error}.") from error
        for topic in topics:
            if self._epochs.get(topic) == found.epoch:
                if any(p >= self.partitions(topic) for p in found.next):
                    raise Problem("bad_position")
                return topic, found
        raise Problem("position_lost", "The position belongs to another channel, or to a log that was made anew.")

    async def passes(self, topic: str, following: Mapping[int, int], seconds: float) -> bool:
        """Wait until everything before these offsets has been read; false when the time is over."""

        def missing() -> bool:
            return any(self.positions.get(Spot(topic, p), 0) < n for p, n in following.items())

        if not missing():  # a deadline costs more than all the rest
            return True
        try:
            async with asyncio.timeout(seconds):
                while missing():
                    await self._moved.wait()
        except TimeoutError:
            return False
        return True

    # ---- its life
    def begin_anew(self) -> None:
        """Load the rows again, and follow from there."""
        self._anew = True

    async def run(self, begin: Begin, take: Take, wanted: Wanted, forget: Callable[[], None]) -> None:
        """Follow the log. `begin` loads what is folded and says where to read on; what is `wanted` by nobody is not
        decoded; `forget` before it begins anew.
        """
        while True:
            try:
                await self._session(begin, take, wanted)
            except (KafkaError, AnotherLog, Problem) as error:
                log.warning("live reader begins anew error=%s", type(error).__name__)
            self.caught_up = False
            forget()
            await asyncio.sleep(1)

    async def _session(self, begin: Begin, take: Take, wanted: Wanted) -> None:
        async with reading(self._cluster, self._catalogue) as reader:
            self.opened = await self._epoch(reader)
            for topic in self.known:
                ids = {s.partition: i for s, i in self.opened.items() if s.topic == topic}
                self._epochs[topic] = epoch_of(topic, ids)
            spots = reader.spots(self.followed)
            self._noted = await reader.ends(spots)
            starts = await reader.starts(spots)
            self._anew = False
            begins = await begin()
            self.positions = {s: max(begins.get(s, self._noted[s]), starts[s]) for s in spots}
        async with following(self._cluster, self._catalogue, self.positions) as follower:
            self._follower, self._since, self._age = follower, time.time(), 0.0
            watch = asyncio.create_task(self._watch())
            try:
                await self._follow(follower, take, wanted, watch)
            finally:
                self._follower = None
                watch.cancel()

    async def _follow(self, follower: Follower, take: Take, wanted: Wanted, watch: asyncio.Task[None]) -> None:
        while True:
            self._look_round()
            for spot, messages, reached in await follower.messages():
                self._busy_since = time.monotonic()
                await self._take_all(spot, messages, take, wanted)
                self.positions[spot] = reached
                if messages:
                    self._read[spot.topic](len(messages))
                    self._age = max(0.0, time.time() - messages[-1].timestamp / 1000)
                    self._metrics.lag.set(self._age)
            self._busy_since = None
            if watch.done():
                watch.result()
            if self._anew:
                raise AnotherLog

    async def _take_all(self, spot: Spot, messages: Sequence[Message], take: Take, wanted: Wanted) -> None:
        topic = spot.topic
        self.few = len(messages) <= FEW
        for count, message in enumerate(messages, 1):
            # What nobody here asks for is not read; but one by an unknown schema is waited for all the same.
            if not wanted(topic, message.key) and event_name(message.value):
                self.positions[spot] = message.offset + 1
            else:
                try:
                    record = to_record(self._catalogue, message)
                except UnknownSchema:
                    record = await patiently(self._cluster, self._catalogue, message, to_record)
                self.positions[spot] = message.offset + 1
                await take(record)
            if count % YIELD_AFTER == 0:
                self._busy_since = time.monotonic()
                self._look_round()
                await asyncio.sleep(0)  # or a burst would hold up every request

    def _look_round(self) -> None:
        """Tell those who wait, and note whether the ends of the start have been reached."""
        self._moved.set()
        self._moved = asyncio.Event()
        if not self.caught_up and all(self.positions[s] >= n for s, n in self._noted.items()):
            self.caught_up = True
            log.info("live reader caught up partitions=%d", len(self._noted))

    async def _epoch(self, reader: LogReader) -> dict[Spot, str]:
        """The log's epoch, once all topics are there and opened; "" where the beginning is kept no longer."""
        while True:
            spots = reader.spots(self.known)
            try:
                async with asyncio.timeout(20):
                    starts = await reader.starts(spots)
                    found = await reader.epoch(spots)
            except (TimeoutError, KafkaError) as error:
                log.warning("waiting for topics error=%s", type(error).__name__)
            else:
                missing = sorted({s.topic for s in spots if not found[s] and starts[s] == 0})
                if not missing:
                    return found
                log.warning("waiting for topics to be opened missing=%s", ",".join(missing))
            await asyncio.sleep(1)

    async def _watch(self) -> None:
        """Look now and then whether the topics are still those of the start."""
        while True:
            await asyncio.sleep(EPOCH_CHECK_S)
            try:
                async with reading(self._cluster, self._catalogue) as reader, asyncio.timeout(30):
                    found = await reader.epoch(reader.spots(self.known))
            except (KafkaError, TimeoutError) as error:
                log.warning("the log's epoch could not be checked error=%s", type(error).__name__)
                continue
            if any(i and self.opened.get(s) and i != self.opened[s] for s, i in found.items()):
                raise AnotherLog
