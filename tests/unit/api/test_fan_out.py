"""What is said while a round is under way is handed out once, in order; what is kept for one who reads slowly is
bounded in bytes, not in frames.
"""

from __future__ import annotations

import asyncio
from typing import Any

from api.fan_out import FanOut, Watcher
from api.filters import parse
from api.frames import Batch, Frame
from api.metrics import Metrics


class Reader:
    """A connection that only notes what it gets."""

    def __init__(self) -> None:
        self.got: list[Frame] = []
        self.cut = 0

    def write(self, frame: Frame) -> None:
        self.got.append(frame)

    def deliver(self, batch: Batch) -> None:
        self.got += batch.frames

    def cut_off(self) -> None:
        self.cut += 1


def test_held_frames_are_bounded_in_bytes_and_handed_over_in_order() -> None:
    reader = Reader()
    watcher = Watcher(reader, None, 10_000)
    frames = [Frame(b"x" * 700) for _ in range(50)]
    for i, frame in enumerate(frames):
        watcher.take(Batch([frame]))
        assert reader.cut == 0
        if i % 8 == 7:
            for _ in range(8):
                watcher.release()
    assert reader.got == frames[:48]
    for frame in frames[:8]:
        watcher.tell(frame)
    assert reader.cut == 0
    watcher.tell(frames[0])
    assert reader.cut == 1


async def test_what_is_said_during_a_round_is_handed_out_once_and_in_order() -> None:
    fan_out, readers, frames = FanOut(Metrics()), [Reader() for _ in range(3)], [Frame(b"%d" % i) for i in range(300)]
    for i, reader in enumerate(readers):
        watcher = Watcher(reader, parse({"key": "a", "op": "eq", "val": i}), 10_000)
        watcher.held = None
        no_lane: Any = None
        fan_out.join(watcher, 0, no_lane)
    for number, frame in enumerate(frames, 1):
        for group in list(fan_out.groups.values()):
            fan_out.tell(group, frame, number)
        await asyncio.sleep(0)  # between two groups of a round, too
    async with asyncio.timeout(10):
        while any(len(reader.got) < len(frames) for reader in readers):  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0.01)
    assert [reader.got for reader in readers] == [frames] * 3
