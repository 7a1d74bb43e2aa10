"""What strangers write who have the broker's address and nothing else: poison on every topic."""

from __future__ import annotations

import asyncio
import random

from tests.chaos.shape import Shape
from tests.chaos.site import Site
from topics.codec import encode
from topics.events import RecipientChanged, TokenRevoked
from topics.ids import new_id
from topics.produce import NotOnTheLog


async def write(site: Site, shape: Shape, rng: random.Random) -> int:
    """Poison, `shape.strangers` times in the flow's time; how much was acknowledged."""
    topics = list(site.catalogue.topics())

    async def one(index: int, after_s: float, key: str, value: bytes) -> bool:
        await asyncio.sleep(after_s)
        topic = topics[index % len(topics)]
        try:
            await (await site.producer.enqueue_bytes(topic, key, value))
        except NotOnTheLog:
            return False  # it may stand there all the same; strangers do not repeat themselves
        return True

    work = [
        one(i, rng.uniform(0, shape.flow_s), f"stranger-{rng.randrange(20)}", _poison(rng, topics[i % len(topics)]))
        for i in range(shape.strangers)
    ]
    return sum(await asyncio.gather(*work))


def _poison(rng: random.Random, topic: str) -> bytes:
    person = RecipientChanged(
        event_id=new_id(), producer="stranger", occurred_at=0, recipient_id="x", version=1, body=b"[no object"
    )
    good = encode(person)
    kinds = [rng.randbytes(rng.randint(1, 80)), b"", b"{}", good[: rng.randint(1, len(good) - 1)], good + b"\0"]
    if topic not in ("controls", "schemas", "dead-letters"):
        revoked = TokenRevoked(event_id=new_id(), producer="stranger", occurred_at=0, token_id="x", until=0)
        kinds.append(encode(revoked))  # well made, and in no place where it could belong
    return rng.choice(kinds)
