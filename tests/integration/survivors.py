"""Writes and reads one topic with a plain client, to see which records outlive what is done to the broker."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError

TOPIC = "survivors"


async def make_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
        assert [error[1] for error in answer.topic_errors] == [0]
    finally:
        await admin.close()


async def send(bootstrap: str, values: list[bytes]) -> list[bytes]:
    """Sends one after the other and returns the acknowledged ones; ends at the first that is not."""
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", max_request_size=2_500_000)
    await producer.start()
    acknowledged = []
    try:
        for value in values:
            await asyncio.wait_for(producer.send_and_wait(TOPIC, value, partition=0), 5)
            acknowledged.append(value)
    except (KafkaError, TimeoutError):
        return acknowledged
    finally:
        # stop() waits for what can never be sent to a dead broker
        stopping = asyncio.create_task(producer.stop())
        await asyncio.wait([stopping], timeout=2)
        stopping.cancel()
    return acknowledged


async def read(bootstrap: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    consumer.assign([TopicPartition(TOPIC, 0)])
    await consumer.start()
    try:
        return [(await asyncio.wait_for(consumer.getone(), 10)).value for _ in range(count)]
    finally:
        await consumer.stop()
