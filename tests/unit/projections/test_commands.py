"""Which commands are still known: those of the last 30 days of the log, and a bounded number is forgotten at once."""

from collections.abc import Callable

import pytest
from sqlalchemy import select

from projections.notices import REMEMBERED_MS
from projections.sql.commands import forget_commands
from projections.sql.schema import marks
from projections.sql.store import Store, insert_all
from topics.catalogue import DAY_MS, NOTICES
from topics.fetch import Spot

BOX = Spot(NOTICES, 0)
NOW = 2 * REMEMBERED_MS


@pytest.fixture
def store(database: Callable[[str], str]) -> Store:
    made = Store(database("t"))
    made.prepare()
    return made


def kept(store: Store, ages: list[int], partition: int = 0, most: int = 100) -> list[str]:
    """What is left of commands that are so old (ms), named by their number."""
    with store.writing() as tx:
        rows = [
            {"user_id": "ann", "cmd": str(i), "partition": partition, "offset": i, "at": NOW - age}
            for i, age in enumerate(ages)
        ]
        insert_all(tx, marks, rows)
        forget_commands(tx, BOX, most)
        return sorted(tx.execute(select(marks.c.cmd)).scalars())


def test_what_the_fold_still_compares_with_stays(store: Store) -> None:
    assert kept(store, [REMEMBERED_MS + DAY_MS, REMEMBERED_MS, 0, REMEMBERED_MS - 1]) == ["1", "2", "3"]


def test_it_is_counted_from_the_newest_command_and_not_from_a_clock(store: Store) -> None:
    assert kept(store, [REMEMBERED_MS, REMEMBERED_MS]) == ["0", "1"]


def test_no_more_than_asked_for_at_once_and_the_oldest_first(store: Store) -> None:
    old = REMEMBERED_MS + 5 * DAY_MS
    assert kept(store, [old, old + 2, old + 1, 0], most=2) == ["0", "3"]


def test_other_partitions_are_left_alone(store: Store) -> None:
    assert kept(store, [REMEMBERED_MS + 2 * DAY_MS, 0], partition=1) == ["0", "1"]
