"""What is kept for one who reads slowly is bounded in bytes, not in frames."""

from __future__ import annotations

from api.fan_out import Watcher
from api.frames import Batch, Frame


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
