"""The relay on a real broker: an answer to an old question has a place in its lane before what was sent already."""

import asyncio
from pathlib import Path

from projections.sql import outbox
from streams.barrier import Barrier
from streams.folding import Folding
from streams.relay import REPEAT_AFTER_S, Relay
from tests.integration.worker_site import Site, raised
from topics.catalogue import NOTICES
from topics.codec import encode
from topics.events import NoticeRaised
from topics.fetch import Spot

LANE = Spot(NOTICES, 0)


def row(offset: int, event: NoticeRaised) -> outbox.Waiting:
    return outbox.Waiting(offset, 0, event.event_id, NOTICES, event.user, encode(event), ())


async def test_a_row_behind_what_was_sent_does_not_wait_for_the_repeat(
    kafka: str, namespace: str, tmp_path: Path
) -> None:
    async with Site(kafka, namespace, tmp_path).open() as site:
        relay, barrier = Relay(site.producer), Barrier({})
        folding = Folding(site.store, site.catalogue, barrier, "test", relay.said)
        folding.at = {LANE: (20, 0)}
        assert await barrier.check(folding)
        running = asyncio.create_task(relay.run(folding))

        async def say(offset: int, user: str) -> None:
            with site.store.writing() as tx:
                outbox.put(tx, LANE, [row(offset, raised(user))])
            relay.said(LANE, (offset, 0))

        async def told(user: str) -> None:
            async with asyncio.timeout(REPEAT_AFTER_S / 2):
                while True:
                    if user in {getattr(r.event, "user", None) for r in await site.log(NOTICES)}:
                        return
                    await asyncio.sleep(0.05)

        try:
            await say(10, "ann")
            await told("ann")
            await say(5, "bob")  # decided only now, asked long ago
            await told("bob")
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
