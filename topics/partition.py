"""Which partition a key belongs to: murmur2, the same in every client of the log."""

from __future__ import annotations

from functools import lru_cache

from aiokafka.partitioner import murmur2


@lru_cache(1 << 14)  # pure Python, and the same people come again
def partition_of(key: str, partitions: int) -> int:
    """The partition of `key` in a topic with that many partitions."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)
