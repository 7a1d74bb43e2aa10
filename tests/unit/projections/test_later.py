"""What many are told is made piece by piece."""

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from projections.outgoing import Later


@given(st.lists(st.integers(0, 5), max_size=6), st.integers(-3, 30), st.integers(-3, 30))
def test_it_reads_like_the_list_of_all_and_makes_only_what_is_asked_for(sizes: list[int], low: int, high: int) -> None:
    made: list[tuple[int, int]] = []

    def maker(part: int) -> tuple[int, Callable[[int], tuple[int, int]]]:
        def make(i: int) -> tuple[int, int]:
            made.append((part, i))
            return part, i

        return sizes[part], make

    later = Later([maker(part) for part in range(len(sizes))])
    every = [(part, i) for part, size in enumerate(sizes) for i in range(size)]
    assert len(later) == len(every)
    assert not made
    assert later[low:high] == every[low:high]
    assert made == every[low:high]
    assert list(later) == every
