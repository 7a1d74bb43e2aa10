"""Every client of the log puts a key into the same partition, by Java's murmur2; the vectors are Kafka's own."""

import random

import pytest
from aiokafka.partitioner import DefaultPartitioner as Aiokafka
from kafka.partitioner.default import DefaultPartitioner as KafkaPython
from kafka.partitioner.default import murmur2

from topics.partition import partition_of

JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "hash_"), JAVA.items(), ids=lambda v: str(v)[:20])
def test_the_hash_is_javas(key: bytes, hash_: int) -> None:
    assert murmur2(key) == hash_ % (1 << 32)
    for n in (1, 3, 4, 12):
        assert partition_of(key.decode(), n) == (hash_ & 0x7FFFFFFF) % n


def test_all_clients_agree() -> None:
    dice = random.Random(7)
    alphabet = "abcXYZ019-_/:@. äß中\U0001f600"
    for _ in range(500):
        key = "".join(dice.choices(alphabet, k=dice.randint(1, 40)))
        n = dice.randint(1, 16)
        partitions = list(range(n))
        found = {
            partition_of(key, n),
            Aiokafka()(key.encode(), partitions, partitions),
            KafkaPython()(key.encode(), partitions, partitions),
        }
        assert len(found) == 1, (key, n, found)
