"""The physical limit beside which the paths are shown: one record through this broker, produced and consumed by bare
aiokafka clients.
"""

from __future__ import annotations

import asyncio
import time

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic


async def hops(bootstrap: str, rate: float, count: int) -> list[float]:
    """Milliseconds from send to receipt of `count` records of 400 bytes at `rate` a second."""
    topic = f"bench-hop-{time.time_ns()}"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, linger_ms=0)
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest", enable_auto_commit=False)
    await producer.start()
    await consumer.start()
    consumer.assign([TopicPartition(topic, 0)])
    await producer.send_and_wait(topic, b"warm")
    await consumer.getone()
    took: list[float] = []

    async def receive() -> None:
        while len(took) < count:
            message = await consumer.getone()
            took.append((time.monotonic_ns() - int(message.value[:20])) / 1e6)

    receiving = asyncio.create_task(receive())
    begun = time.monotonic()
    for i in range(count):
        await asyncio.sleep(max(0.0, begun + i / rate - time.monotonic()))
        await producer.send(topic, f"{time.monotonic_ns():020d}".encode() + b"x" * 380)
    await asyncio.wait_for(receiving, 30)
    await producer.stop()
    await consumer.stop()
    return took
