"""Positions are opaque, exact, and know the log that they belong to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.live.position import BadPosition, decode, encode, epoch_of

EPOCH = epoch_of("notices", {0: "a", 1: "b"})


@given(st.dictionaries(st.integers(0, 1_000), st.integers(0, 2**63 - 1), max_size=20))
def test_what_was_put_in_comes_out(following: dict[int, int]) -> None:
    found = decode(encode(EPOCH, following))
    assert (found.epoch, found.next) == (EPOCH, following)


def test_another_topic_another_log_or_another_number_of_partitions_is_another_epoch() -> None:
    others = [
        ("entities.vm", {0: "a", 1: "b"}),
        ("notices", {0: "a", 1: "c"}),
        ("notices", {0: "a"}),
        ("notices", {0: "b", 1: "a"}),
    ]
    assert EPOCH not in [epoch_of(topic, opened) for topic, opened in others]


@given(st.text(max_size=40) | st.binary(max_size=30).map(lambda b: b.hex()))
def test_anything_else_is_refused_or_harmless(text: str) -> None:
    try:
        decode(text)
    except BadPosition:
        return


@pytest.mark.parametrize("text", ["", "AAAA", "=", "ä", "x" * 10_000, encode(EPOCH, {1: 300})[:-1]])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(BadPosition):
        decode(text)
