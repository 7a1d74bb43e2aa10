"""The rules hold in random schedules: kills, zombies, wrong clocks, repeats, poison, wiped and restored databases.

The mutations at the end show that these checks can fail.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

import projections.fan_out
import projections.forwarding
import projections.notices
from projections.sql import outbox
from projections.sql.schema import notices, steps
from projections.sql.store import wipe
from tests.unit.projections.oracle import check
from tests.unit.projections.world import Log, World
from topics.events import Record

SEEDS = range(12)


def rows(world: World) -> dict[tuple[str, str], tuple[Any, ...]]:
    with world.store.reading() as tx:
        lanes: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        for s in tx.execute(select(steps).where(steps.c.what != "snooze").order_by(steps.c.what, steps.c.step)):
            lanes.setdefault((s.user_id, s.notice_id), []).append((s.what, s.step, s.number, s.due_at, s.state))
        return {
            (n.user_id, n.notice_id): (
                n.read_at is not None,
                n.archived_at is not None,
                n.snoozed_until,
                n.ended_at is not None,
                tuple(lanes.get((n.user_id, n.notice_id), ())),
            )
            for n in tx.execute(select(notices))
        }


def events(log: Log) -> dict[str, bytes]:
    return {i.event.event_id: i.raw for p in log.parts.values() for i in p if isinstance(i, Record) and i.event}


def run(seed: int, folder: Path) -> None:
    world = World(seed, folder)
    world.quiesce()
    before = rows(world)
    check(world.log.parts, before)
    said = events(world.log)
    with world.store.writing() as tx:
        wipe(tx)
    for w in world.workers:
        world.restart(w)
    world.ghosts.clear()
    world.quiesce()
    assert rows(world) == before, "a rebuild gives other rows"
    assert events(world.log) == said, "a rebuild says something new, or says it otherwise"
    world.store.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_rules_hold(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if seed % 2:
        monkeypatch.setattr("projections.sql.commit.CHUNK", 1)  # whatever goes to two people takes two transactions
    run(seed, tmp_path)


def early_due(patch: pytest.MonkeyPatch) -> None:
    real = projections.forwarding.ask

    def ask(step: Any, due: Any, record: Any, preferences: str) -> bool:
        step.due_at, kept = 0, step.due_at
        found = real(step, due, record, preferences)
        step.due_at = kept
        return found

    patch.setattr(projections.notices, "ask", ask)


def read_does_not_stop(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(projections.notices, "stop", lambda *_: [])


def commands_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(projections.notices, "_first_time", lambda *_: True)


def no_chain(patch: pytest.MonkeyPatch) -> None:
    real = projections.fan_out._committed  # the rule that this mutation breaks

    def committed(desk: Any, record: Any, e: Any) -> Any:
        desk.runs[e.alert, e.shard] = projections.fan_out.Run(e.run, e.number - 1, 1)
        return real(desk, record, e)

    patch.setattr(projections.fan_out, "_committed", committed)


def drop_poison(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("projections.sql.commit._buried", lambda *_: [])


def relay_loses(patch: pytest.MonkeyPatch) -> None:
    """Rows leave when they are sent, not when they are read back; a producer's error then loses them."""
    real = outbox.lane

    def lane(tx: Any, spot: Any, after: Any, limit: int) -> Any:
        found = real(tx, spot, after, limit)
        if found:
            tx.execute(text("PRAGMA query_only=0"))
            outbox.drop(tx, [r.event_id for r in found])
        return found

    patch.setattr(outbox, "lane", lane)


def forgets_what_digests_hold(patch: pytest.MonkeyPatch) -> None:
    for how in ("load_held", "_load_named"):
        patch.setattr(f"projections.sql.notices.{how}", lambda *_: None)


def read_stays_in_its_digest(patch: pytest.MonkeyPatch) -> None:
    real = projections.forwarding.stop

    def stop(notice: Any, record: Any, reason: str) -> Any:
        held = [s for s in notice.steps.values() if s.state == "collected"]
        found = real(notice, record, reason)
        for step in held:
            step.state = "collected"
        return found

    patch.setattr(projections.notices, "stop", stop)


MUTATIONS = [
    early_due,
    read_does_not_stop,
    commands_again,
    no_chain,
    drop_poison,
    relay_loses,
    forgets_what_digests_hold,
    read_stays_in_its_digest,
]


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.__name__)
def test_the_checks_catch_a_broken_rule(
    mutation: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mutation(monkeypatch)
    for seed in range(60):
        try:
            run(seed, tmp_path)
        except AssertionError:
            return
    pytest.fail("60 schedules did not notice")
