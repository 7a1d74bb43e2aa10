"""When a reader is up to date, judged by what the broker last said."""

import time

import pytest

from api.live.log import unread


@pytest.mark.parametrize(
    ("ends", "said_ago", "positions", "seconds", "age", "reason"),
    [
        ((10, 20), (0.1, 0.4), (10, 20), 60, 0.0, None),
        ((10, 20), (0.1, 0.4), (9, 12), 60, 0.2, None),  # on its way
        ((10, 20), (0.1, 0.4), (10, 20), 60, 90.0, None),  # the newest is old, and all there is
        ((10, 20), (0.1, 0.4), (9, 12), 60, 5.5, "9 records that were not read in time"),
        ((10, 20), (0.1, 7.0), (10, 20), 60, 0.0, "the broker, which has been silent for 7 s"),
        ((0, 0), (1e9, 1e9), (0, 0), 60, 0.0, "the broker, which has been silent for 60 s"),  # it never said a word
        ((0, 0), (1e9, 1e9), (0, 0), 2, 0.0, None),  # it has just been asked
    ],
)
def test_a_reader_is_up_to_date_or_says_why_not(
    ends: tuple[int, ...],
    said_ago: tuple[float, ...],
    positions: tuple[int, ...],
    seconds: float,
    age: float,
    reason: str | None,
) -> None:
    now = time.time()
    heard = [(end, now - ago, n) for end, ago, n in zip(ends, said_ago, positions, strict=True)]
    assert unread(heard, seconds, age) == reason
