"""Dead letters: the bytes that could not be taken, with where they stood and why in the headers.

They are at least once; (topic, partition, offset, hash) tells them apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from topics.catalogue import DEAD_LETTERS
from topics.ids import derived_id

KEPT_BYTES = 64 * 1024
MOST_PARTITIONS, MOST_OFFSETS = 1 << 31, 1 << 62


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record on `dead-letters`: it stands at (topic, partition, offset) there, and speaks of `source_*`."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    source_topic: str
    source_partition: int
    source_offset: int
    hash: str
    reason: str

    @property
    def event_id(self) -> str:
        """What the outbox row that asked for it is called."""
        return dead_letter_id(self.source_topic, self.source_partition, self.source_offset, self.hash)


def digest(value: bytes | None) -> str:
    """Names the bytes: a log that was truncated may have other bytes at the same offset."""
    return hashlib.sha256(value or b"").hexdigest()[:32]


def dead_letter_id(topic: str, partition: int, offset: int, hash_: str) -> str:
    """The id of the dead letter for these bytes at this place."""
    return derived_id("dead", topic, partition, offset, hash_)


def to_headers(topic: str, partition: int, offset: int, value: bytes | None, reason: str) -> list[tuple[str, bytes]]:
    """The headers of a dead letter; the value is to be cut to KEPT_BYTES."""
    reason = reason.replace("\0", "\ufffd")
    parts = {"topic": topic, "partition": partition, "offset": offset, "hash": digest(value), "reason": reason[:500]}
    return [(name, str(part).encode()) for name, part in parts.items()]


def from_headers(
    partition: int, offset: int, timestamp: int, value: bytes | None, headers: Iterable[tuple[str, bytes]]
) -> DeadLetter:
    """The dead letter at an offset of `dead-letters`; it speaks of itself if its headers name no place on the log."""
    named = {name: raw.decode(errors="replace").replace("\0", "\ufffd") for name, raw in headers}
    place = (DEAD_LETTERS, partition, offset)
    try:
        at = int(named["partition"]), int(named["offset"])
        if "hash" in named and 0 <= at[0] < MOST_PARTITIONS and 0 <= at[1] < MOST_OFFSETS:
            place = (named["topic"], *at)
    except (KeyError, ValueError):  # the wrapper's letters speak of a program's line
        named.setdefault("reason", "a letter that names no place on the log")
    hash_ = named["hash"] if place[0] != DEAD_LETTERS else digest(value)
    return DeadLetter(DEAD_LETTERS, partition, offset, timestamp, *place, hash_, named.get("reason", ""))
