"""The hot tail of an entity channel: its last changes in the order in which this gateway read them, so that whoever was
away for a moment goes on without Kafka.

Bounded in records and bytes. A frame that was built for one who resumes serves all with an equal filter: from where
the reader had passed the client's position in every partition, it is the frame that everybody had.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from api.live.frames import Batch, Frame
from topics.catalogue import entity_topic
from topics.events import Record
from topics.fetch import Spot

if TYPE_CHECKING:
    from api.live.entities import Change, Entity, LiveEntities
    from api.live.filters import Filter
    from api.live.log import LiveLog
    from api.live.ranges import Ranges

UNKNOWN = object()
ENTRY_BYTES = 1_000  # of a change beside its body; a test holds what it adds up to against the real memory
FRAME_BYTES = 300
PIECE = 100  # frames that go out together
BATCHES = 100  # that are kept
FRAMES_SHARE = 4  # of the bytes, one in so many is for frames


class Entry(NamedTuple):
    """One record: `position` is the token of all who were told then."""

    partition: int
    offset: int
    position: str
    change: Change

    @property
    def bytes(self) -> int:
        """What it holds that nobody else holds: the version before, as the one after is still in use."""
        before = self.change.before
        return ENTRY_BYTES + (sys.getsizeof(before.body) if before is not None and before is not UNKNOWN else 0)


Since = tuple[int, Entry, bool]  # its number, and whether the token of all holds for whoever asked


class Tail:
    """`frame` builds the frame of a change with a position; at most `records` and `size` bytes are kept.

    `first`: from these offsets on everything is here; `known`: and the version before each, too.
    """

    def __init__(self, records: int, size: int, frame: Callable[[Change, str, Filter | None], Frame | None]) -> None:
        self._records, self._size, self._frame = records, size, frame
        self.turn = asyncio.Lock()  # of whoever reads back, for all
        self.begin({})

    def begin(self, first: Mapping[int, int]) -> None:
        """Forget everything; what comes next comes after these offsets."""
        self.first, self.known = dict(first), dict(first)
        self._entries: list[Entry] = []
        self._dropped = 0  # entries before these; the number of an entry counts from the first there ever was
        self._offsets: dict[int, list[int]] = {p: [] for p in first}
        self._numbers: dict[int, list[int]] = {p: [] for p in first}
        self._frames: dict[tuple[str, int], Frame | None] = {}
        self._batches: dict[tuple[str, int, int], list[Batch]] = {}
        self._asked: tuple[Mapping[int, int], list[Since]] | None = None  # the last question, and its answer
        self._entry_bytes = self._frame_bytes = 0

    @property
    def bytes(self) -> int:
        """What it holds, estimated."""
        return self._entry_bytes + self._frame_bytes

    @property
    def position(self) -> str:
        """That of the newest entry."""
        return self._entries[-1].position

    def reaches(self, at: Mapping[int, int]) -> bool:
        """Whether everything from these offsets on is here."""
        return all(at[p] >= n for p, n in self.first.items())

    def knows(self, at: Mapping[int, int]) -> bool:
        """And the versions before."""
        return all(at[p] >= n for p, n in self.known.items())

    def append(self, entry: Entry) -> None:
        """What was read just now."""
        self._asked = None
        self._numbers.setdefault(entry.partition, []).append(self._dropped + len(self._entries))
        self._offsets.setdefault(entry.partition, []).append(entry.offset)
        self._entries.append(entry)
        self._entry_bytes += entry.bytes
        limit = self._size - self._size // FRAMES_SHARE
        if len(self._entries) > self._records or self._entry_bytes > limit:
            self._shorten(min(self._records, len(self._entries)) * 7 // 8, limit * 7 // 8)

    def _shorten(self, records: int, size: int) -> None:
        """Drop the oldest, an eighth at a time: lists are not made for less."""
        count = 0
        while count < len(self._entries) - 1 and (len(self._entries) - count > records or self._entry_bytes > size):
            entry = self._entries[count]
            self._entry_bytes -= entry.bytes
            self.first[entry.partition] = entry.offset + 1
            self.known[entry.partition] = max(self.known.get(entry.partition, 0), entry.offset + 1)
            count += 1
        del self._entries[:count]
        self._dropped += count
        for partition, numbers in self._numbers.items():
            gone = bisect_left(numbers, self._dropped)
            del numbers[:gone], self._offsets[partition][:gone]
        self._forget_frames()

    def prepend(self, entries: Sequence[Entry], first: Mapping[int, int]) -> None:
        """What was read back later: all from the offsets `first` up to where the tail began until now."""
        self._asked = None
        self._entries[0:0] = entries
        self._dropped -= len(entries)
        for partition, offset in first.items():
            older = [(n, e.offset) for n, e in enumerate(entries, self._dropped) if e.partition == partition]
            self._numbers.setdefault(partition, [])[0:0] = [n for n, _ in older]
            self._offsets.setdefault(partition, [])[0:0] = [o for _, o in older]
            self.first[partition] = offset
        self._entry_bytes += sum(e.bytes for e in entries)

    def room(self) -> int:
        """How many records may still be read back."""
        limit = self._size - self._size // FRAMES_SHARE
        spare = (limit - self._entry_bytes) // max(ENTRY_BYTES, self._entry_bytes // max(1, len(self._entries)))
        return max(0, min(self._records - len(self._entries), spare))

    def before(self, partition: int, offset: int) -> Any:
        """The version that the record at this offset replaced, or UNKNOWN."""
        offsets = self._offsets.get(partition, [])
        i = bisect_left(offsets, offset)
        if i == len(offsets) or offsets[i] != offset:
            return UNKNOWN
        return self._entries[self._numbers[partition][i] - self._dropped].change.before

    def since(self, at: Mapping[int, int]) -> list[Since]:
        """What came after these offsets. Those who come back together were mostly told the same before: it is gathered
        once for all of them.
        """
        if self._asked is None or self._asked[0] != at:
            self._asked = dict(at), self._since(at)
        return self._asked[1]

    def _since(self, at: Mapping[int, int]) -> list[Since]:
        start, shared = self._dropped + len(self._entries), self._dropped
        for partition, offsets in self._offsets.items():
            i, numbers = bisect_left(offsets, at[partition]), self._numbers[partition]
            if i < len(offsets):
                start = min(start, numbers[i])
            if i > 0:
                shared = max(shared, numbers[i - 1] + 1)
        return [
            (number, entry, number >= shared)
            for number, entry in enumerate(self._entries[start - self._dropped :], start)
            if number >= shared or entry.offset >= at[entry.partition]
        ]

    def frame(self, number: int, entry: Entry, wanted: Filter | None) -> Frame | None:
        """The frame that everybody with this filter had; null where it was no news to them."""
        key = (wanted.name if wanted else "", number)
        try:
            return self._frames[key]
        except KeyError:
            pass
        found = self._frame(entry.change, entry.position, wanted)
        for version in (entry.change.before, entry.change.after):
            if version is not None and version is not UNKNOWN:
                version.spare()  # or what filters looked at stays in memory as long as the tail
        size = FRAME_BYTES + (len(found.message) if found else 0)
        if self._frame_bytes + size > self._size // FRAMES_SHARE:
            self._forget_frames()
        if number >= self._dropped:  # or nobody will ever forget it
            self._frames[key] = found
            self._frame_bytes += size
        return found

    def batches(self, numbered: Sequence[Since], wanted: Filter | None) -> list[Batch]:
        """The frames that everybody with this filter had, in pieces: joined once for all who ask for the same."""
        key = (wanted.name if wanted else "", numbered[0][0], numbered[-1][0])
        found = self._batches.get(key)
        if found is None:
            frames = [frame for number, entry, _ in numbered if (frame := self.frame(number, entry, wanted))]
            found = [Batch(frames[i : i + PIECE]) for i in range(0, len(frames), PIECE)]
            size = sum(len(frame.message) for frame in frames)
            if len(self._batches) < BATCHES and self._frame_bytes + size <= self._size // FRAMES_SHARE:
                self._batches[key] = found
                self._frame_bytes += size
        return found

    def _forget_frames(self) -> None:
        self._frames.clear()
        self._batches.clear()
        self._frame_bytes = 0


async def read_back(live: LiveEntities, log: LiveLog, ranges: Ranges, at: Mapping[int, int]) -> None:
    """Make the tail reach back to these offsets, if it has room for that: one reads, and the others have it from there.

    Problem `position_lost`, KafkaError.
    """
    tail, topic = live.tail, entity_topic(live.entity_type)
    async with tail.turn:
        first = dict(tail.first)
        start = {p: min(at[p], n) for p, n in first.items()}
        if start == first or sum(first.values()) - sum(start.values()) > tail.room():
            return
        vector, entries = dict(start), []
        for p, n in first.items():
            versions: dict[str, Entity | None] = {}
            async for record in ranges.of_all(Spot(topic, p), start[p], n):
                vector[p] = record.offset + 1
                change = live.change(record, versions.get(record.key, UNKNOWN)) if isinstance(record, Record) else None
                if change is not None:
                    versions[change.id] = change.after
                    entries.append(Entry(p, record.offset, log.token(topic, vector), change))
        if tail.first == first:  # or something was dropped meanwhile, or all was begun anew
            tail.prepend(entries, start)
