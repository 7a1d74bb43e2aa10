"""Reading history: one pass over a few partitions, several topics merged in the order of the log's time, single
records by their place. Bytes are looked at before anything is decoded, and nothing is held but what was fetched.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any, NamedTuple, TypeVar

from topics.catalogue import Catalogue
from topics.cluster import REQUEST_BYTES, Cluster
from topics.codec import UnknownSchema
from topics.events import Record
from topics.fetch import Broken, Item, LogReader, Spot, learn_schemas, to_item, to_record
from topics.partition import partition_of

T = TypeVar("T")
SMALL = 256 * 1024  # for a merge, which holds one such piece of each partition
AT_ONCE = 1000
WAIT_MS = 20  # a fetch under way holds up the next one, at another place

Keep = Callable[[Any], bool]  # whether a client's message (key, value, headers as bytes) is wanted


class At(NamedTuple):
    """A record's place in the order of all: by time (ms), then by name.

    `time` is the log's, but never less than before on the same partition: so a partition keeps its order even where
    the broker's clock was set back, and the order is the same wherever reading begins.
    """

    time: int
    topic: str
    partition: int
    offset: int


class MissingTopics(RuntimeError):
    """The cluster has not all topics of the catalogue; the message says what to do."""


class HistoryReader(LogReader):
    """A LogReader that begins where it is told, asks before it decodes, and does not wait for what it can't read."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue, piece: int = REQUEST_BYTES) -> None:
        super().__init__(cluster, catalogue, piece, WAIT_MS)

    async def start(self) -> None:
        """Connect. KafkaError when the broker is away, MissingTopics where it has not all of the catalogue."""
        await super().start()
        there = await self.consumer.topics()
        if missing := [t for t in self.topics if self._catalogue.physical(t) not in there]:
            raise MissingTopics(f"topics are missing ({', '.join(missing)}): run `tidings topics apply`")

    @property
    def topics(self) -> list[str]:
        """All topics of the catalogue."""
        return list(self._catalogue.topics())

    async def at_time(self, spots: Iterable[Spot], time: int) -> dict[Spot, int]:
        """The first offset logged at `time` (ms) or later; the end where there is none."""
        spots = list(spots)
        found = await self.consumer.offsets_for_times({self._tp(s): max(0, time) for s in spots})
        offsets = {self._spot(tp): at.offset for tp, at in found.items() if at is not None}
        return await self.ends(spots) | offsets

    async def at(self, spot: Spot, offsets: Iterable[int]) -> dict[int, Record | Broken]:
        """The records at these offsets, those that are still there."""
        found: dict[int, Record | Broken] = {}
        end = (await self.ends([spot]))[spot]
        for offset in sorted(o for o in set(offsets) if 0 <= o < end):
            await self.seek({spot: offset})
            while await self.position(spot) <= offset:
                for message in await self.poll(500, 1):
                    if message.offset == offset:
                        found[offset] = await self.decoded(message)
        return found

    async def scan(
        self, starts: Mapping[Spot, int], keep: Keep, ends: Mapping[Spot, int] | None = None
    ) -> AsyncIterator[Item]:
        """What `keep` lets through from these offsets to `ends`, or the ends of now; each partition in its order."""
        found = ends or await self.ends(starts)
        left = {s: end for s, end in found.items() if starts[s] < end}
        if left:
            await self.seek({s: starts[s] for s in left})
        while left:
            for spot, messages in (await self.more(left)).items():
                for message in messages:
                    if keep(message) and message.offset < left[spot]:
                        yield await self.item(message)
            for spot in [s for s, end in left.items() if await self.position(s) >= end]:
                del left[spot]

    async def of_key(self, topic: str, key: str, until: int | None = None) -> AsyncIterator[Record]:
        """Every record of one key on a topic, logged before `until` (ms)."""
        count = len(self.spots([topic]))
        spot, wanted = Spot(topic, partition_of(key, count)), key.encode()
        ends = None if until is None else await self.at_time([spot], until)
        async for record in self.scan(await self.starts([spot]), lambda m: m.key == wanted, ends):
            if isinstance(record, Record):
                yield record

    async def decoded(self, message: Any) -> Record | Broken:
        """One message as a record. UnknownSchema if the log does not tell how to read it: nobody waits here."""
        return await self._read(message, to_record)

    async def item(self, message: Any) -> Item:
        """As `decoded`; dead letters come as such."""
        return await self._read(message, to_item)

    async def _read(self, message: Any, convert: Callable[[Catalogue, Any], T]) -> T:
        try:
            return convert(self._catalogue, message)
        except UnknownSchema:
            await learn_schemas(self._cluster, self._catalogue)
            return convert(self._catalogue, message)

    async def merged(
        self,
        spots: Iterable[Spot],
        *,
        since: int | None = None,
        until: int | None = None,
        after: At | None = None,
        follow: bool = False,
        give_up: Callable[[], bool] = lambda: False,
    ) -> AsyncIterator[tuple[At, Any]]:
        """Messages logged in since <= time < until (ms), and after `after`, in the order of all; not decoded.

        It ends at the ends of now, or when `give_up` says so; with `follow` it goes on with what comes.
        """
        merge = _Merge(self, list(spots), until, give_up)
        await merge.begin(after.time if after else since)
        while await merge.fill(follow=follow):
            at, message = merge.pop()
            if after is None or at > after:
                yield at, message

    async def more(self, spots: Iterable[Spot]) -> dict[Spot, list[Any]]:
        """Messages of the next fetch of these partitions; what was fetched of others waits. Others get a turn."""
        await asyncio.sleep(0)
        got = await self.consumer.getmany(*map(self._tp, spots), timeout_ms=500, max_records=AT_ONCE)
        return {self._spot(tp): messages for tp, messages in got.items()}


class _Merge:
    """What a merge holds: for each partition what was fetched, and in a heap the first of each."""

    def __init__(
        self, reader: HistoryReader, spots: list[Spot], until: int | None, give_up: Callable[[], bool]
    ) -> None:
        self._reader, self._spots, self._until, self._give_up = reader, spots, until, give_up
        self._waiting: dict[Spot, deque[tuple[At, Any]]] = {s: deque() for s in spots}
        self._time: dict[Spot, int] = dict.fromkeys(spots, 0)
        self._unread: dict[Spot, int] = {}
        self._heap: list[tuple[At, Any]] = []

    async def begin(self, since: int | None) -> None:
        reader = self._reader
        starts = await (reader.starts(self._spots) if since is None else reader.at_time(self._spots, since))
        ends = await reader.ends(self._spots)
        self._unread = {s: ends[s] for s in self._spots if starts[s] < ends[s]}
        await reader.seek(starts)

    async def fill(self, *, follow: bool) -> bool:
        """Fetch until the first record of all is known; false at the end."""
        while hungry := [s for s in self._unread if not self._waiting[s]]:
            if self._give_up():
                return False
            await self._fetch(hungry)
        while not self._heap and follow:
            await self._fetch(self._spots)
        return bool(self._heap)

    def pop(self) -> tuple[At, Any]:
        first = heapq.heappop(self._heap)
        waiting = self._waiting[Spot(first[0].topic, first[0].partition)]
        waiting.popleft()
        if waiting:
            heapq.heappush(self._heap, waiting[0])
        return first

    async def _fetch(self, spots: list[Spot]) -> None:
        for spot, messages in (await self._reader.more(spots)).items():
            waiting = self._waiting[spot]
            for message in messages:
                time = self._time[spot] = max(self._time[spot], message.timestamp)
                if self._until is not None and time >= self._until:
                    self._unread.pop(spot, None)
                    break
                waiting.append((At(time, spot.topic, spot.partition, message.offset), message))
                if len(waiting) == 1:
                    heapq.heappush(self._heap, waiting[0])
        for spot in [s for s in spots if s in self._unread]:
            if await self._reader.position(spot) >= self._unread[spot]:
                del self._unread[spot]
