"""What happens to the embedded broker on a disk that is full, and on one that fills up: run on a small disk of its own,
as `python -m tests.integration.full_disk MOUNT_POINT`. Exits 0 if the broker said so and lost nothing.
"""

import asyncio
import sys
from pathlib import Path

import pytest

from broker.embedded import BrokerError, EmbeddedBroker
from tests.integration.survivors import make_topic, read, send


def fill(disk: Path) -> Path:
    """Writes until there is no room, and returns the file to delete for making room again."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(65536))
        except OSError:
            return ballast


async def story(disk: Path) -> None:
    """Full before the start, then while it runs, then with room again."""
    broker = EmbeddedBroker(disk / "data")
    ballast = fill(disk)
    with pytest.raises(BrokerError, match=r"^the disk of .* is full \(0 MiB free\): make room"):
        broker.start()
    ballast.unlink()
    with broker:
        await make_topic(broker.bootstrap)
        acknowledged = await send(broker.bootstrap, [b"before"])
        ballast = fill(disk)
        acknowledged += await send(broker.bootstrap, [bytes([n]) * 1_000_000 for n in range(100)])
        assert 1 <= len(acknowledged) < 101
        async with asyncio.timeout(30):
            while broker.alive():  # noqa: ASYNC110 - a process has no event to wait for
                await asyncio.sleep(0.05)
        assert broker.failure().startswith("the disk of "), broker.failure()
        with pytest.raises(BrokerError, match="is full"):
            broker.start()
        ballast.unlink()
        broker.start()
        assert await read(broker.bootstrap, len(acknowledged)) == acknowledged


if __name__ == "__main__":
    asyncio.run(story(Path(sys.argv[1])))
