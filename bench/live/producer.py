"""`python -m bench.live.producer BOOTSTRAP TOPIC KIND RATE COUNT FIRST`: paced messages, each with its number and the
monotonic time in nanoseconds, so that whoever gets one knows how long it was under way.

KIND: `text` (the bare message; `text:USERS`: with so many keys in turn), `vm` (an entity of that type; any other name,
too, and `a,b` takes turns among topics that end so), `inbox:USERS` (notices to so many users in turn), `http`
(BOOTSTRAP and TOPIC: a port, a path to POST to).
"""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

import uvloop
from aiokafka import AIOKafkaProducer

from bench.log import raised
from topics.codec import encode
from topics.events import EntityChanged, NoticeRaised

SIZE = 230


def message(number: int) -> bytes:
    """SIZE bytes of JSON."""
    text = f'{{"title":"#n:{number},t:{time.monotonic_ns()}","group":"{number % 10}","text":"'
    return f'{text}{"x" * (SIZE - 2 - len(text))}"}}'.encode()


def records(kind: str) -> Callable[[int], tuple[str, bytes, bytes]]:
    """The end of the topic's name, key and value of the record with a number."""
    kind, _, several = kind.partition(":")
    users = int(several or 1)
    if kind == "text":
        return lambda n: ("", b"user-%d" % (n % users), message(n))
    if kind == "inbox":
        return lambda n: ("", *_notice(n, users))
    types = kind.split(",")
    return lambda n: (_end(types, n), b"a", encode(_change(types[n % len(types)], n)))


def _end(types: list[str], number: int) -> str:
    return types[number % len(types)] if len(types) > 1 else ""


def _change(entity_type: str, number: int) -> EntityChanged:
    return EntityChanged(
        event_id=f"{number:032x}",
        producer="bench",
        occurred_at=0,
        entity_type=entity_type,
        entity_id="a",
        op="updated",
        body=message(number),
    )


def _notice(number: int, users: int) -> tuple[bytes, bytes]:
    user, event = raised(number, users, None)
    assert isinstance(event, NoticeRaised)
    return user.encode(), encode(replace(event, body=message(number)))


async def pace(rate: float, count: int, first: int, say: Callable[[int], Awaitable[object]]) -> None:
    """Call `say` with each number at its time."""
    begun = time.monotonic()
    for i in range(count):
        wait = begun + i / rate - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        await say(first + i)


async def kafka(bootstrap: str, topic: str, kind: str, rate: float, count: int, first: int) -> None:
    """To a topic."""
    record, types = records(kind), kind.split(",")
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks=1, linger_ms=0)
    await producer.start()
    for number in range(len(types)):
        await producer.partitions_for(topic + _end(types, number))  # known before the first one waits for it

    async def say(number: int) -> None:
        end, key, value = record(number)
        await producer.send(topic + end, value, key)

    await pace(rate, count, first, say)
    await producer.stop()


async def http(port: int, path: str, rate: float, count: int, first: int) -> None:
    """By POST on one kept-alive connection; nobody waits for the answers."""
    link = socket.create_connection(("127.0.0.1", port))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    loop = asyncio.get_running_loop()
    loop.add_reader(link.fileno(), lambda: link.recv(1 << 20))

    async def say(number: int) -> None:
        body = message(number)
        await loop.sock_sendall(
            link, f"POST {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )

    await pace(rate, count, first, say)
    await asyncio.sleep(0.2)
    link.close()


def main() -> None:
    """Send, and end."""
    where, topic, kind, rate, count, first = sys.argv[1:]
    if kind == "http":
        uvloop.run(http(int(where), topic, float(rate), int(count), int(first)))
    else:
        uvloop.run(kafka(where, topic, kind, float(rate), int(count), int(first)))


if __name__ == "__main__":
    main()
