"""One step of the worker over real rows, without a broker: whose assignment a batch is of, and whose clock counts."""

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from projections.sql.schema import notices, proposals
from projections.sql.store import Store
from streams.barrier import Barrier
from streams.folding import Folding, Restart
from topics.catalogue import COMMANDS, NOTICES, Catalogue
from topics.codec import encode
from topics.events import Event, NoticeRaised, RecipientProposed, Record
from topics.fetch import Spot

BOX, ORDERS = Spot(NOTICES, 0), Spot(COMMANDS, 0)


class Worker:
    """What a worker believes: its folding, and the number of its assignment."""

    def __init__(self, store: Store) -> None:
        self.store, self.assignment = store, 0
        self.folding = Folding(
            store, Catalogue(("vm",)), Barrier({BOX: 0, ORDERS: 0}), "test", lambda _spot, _first: None
        )
        self.folding.rows_of, self.folding.assignment = store.prepare(), lambda: self.assignment

    async def assigned(self, *spots: Spot) -> None:
        self.folding.disown(list(self.folding.at))
        self.assignment += 1
        await self.folding.own(spots, {}, {})

    def count(self, table: Any) -> int:
        with self.store.reading() as tx:
            return int(tx.execute(select(func.count()).select_from(table)).scalar() or 0)


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    store = Store(f"sqlite:///{tmp_path}/t.db")
    made = Worker(store)
    await made.folding.barrier.check(made.folding)
    yield made
    store.close()


def raised(offset: int) -> Event:
    return NoticeRaised(
        event_id=f"raised {offset}", producer="", occurred_at=0, notice_id=f"n{offset}", user="ann", inbox=True,
        kind="direct", alert=None, config_id=None, key=None, entity_type=None, entity_id=None, severity="info",
        lanes=(), forward="", body=b"{}",
    )  # fmt: skip


def proposed(offset: int) -> Event:
    return RecipientProposed(
        event_id=f"proposed {offset}",
        producer="",
        occurred_at=0,
        recipient_id=f"r{offset}",
        op="replace",
        based_on=None,
        body=b"{}",
    )


def log_of(spot: Spot, at: int = 1000) -> list[Record]:
    make = raised if spot == BOX else proposed
    events = [make(i) for i in range(10)]
    return [Record(*spot, i, at, "ann", e, encode(e)) for i, e in enumerate(events)]


@pytest.mark.parametrize(("spot", "table"), [(BOX, notices), (ORDERS, proposals)])
async def test_what_an_assignment_before_this_one_read_changes_nothing(worker: Worker, spot: Spot, table: Any) -> None:
    log = log_of(spot)
    await worker.assigned(spot)
    await worker.folding.fold(spot, log[:3], 1)
    await worker.assigned(spot)
    await worker.folding.fold(spot, log[5:6], 1)  # was in hand while the partition went away and came back
    assert (worker.folding.at[spot], worker.count(table)) == ((3, 0), 3)
    await worker.folding.fold(spot, log[3:], 2)
    assert (worker.folding.at[spot], worker.count(table)) == ((10, 0), 10)


async def test_a_partition_that_is_somebody_elses_is_left_alone(worker: Worker) -> None:
    await worker.assigned(BOX)
    await worker.assigned(ORDERS)
    await worker.folding.fold(BOX, log_of(BOX), 2)
    assert worker.count(notices) == 0


async def test_a_gap_where_everything_is_kept_ends_the_worker(worker: Worker) -> None:
    await worker.assigned(BOX)
    with pytest.raises(Restart, match=r"records 0 to 4 of notices/0 are gone"):
        await worker.folding.fold(BOX, log_of(BOX)[5:], 1)
    assert worker.count(notices) == 0


async def test_a_broker_whose_clock_is_ahead_is_noticed_once_in_what_it_stamped(worker: Worker) -> None:
    await worker.assigned(BOX)
    hour = 3_600_000
    await worker.folding.fold(BOX, log_of(BOX, at=int(time.time() * 1000) + hour), 1)
    assert hour - 60_000 < worker.folding.heard_ahead() <= hour
    assert worker.folding.heard_ahead() < -hour
