"""When a role is started again."""

from tidings.restarts import LONGEST_S, Record


def pauses(code: int, lives: list[float]) -> list[float]:
    record, found = Record(), []
    for lived in lives:
        record, pause = record.after(code, lived)
        found.append(pause)
    return found


def test_who_asks_for_a_restart_gets_it_at_once_but_not_again_and_again() -> None:
    assert pauses(3, [1, 1, 1]) == [0, 1, 2]


def test_who_ends_again_and_again_gets_more_time_up_to_a_limit() -> None:
    assert pauses(1, [0.1] * 8) == [0.5, 1, 2, 4, 8, LONGEST_S, LONGEST_S, LONGEST_S]


def test_who_was_steady_begins_anew() -> None:
    assert pauses(-9, [1, 1, 3600, 1]) == [0.5, 1, 0.5, 1]
