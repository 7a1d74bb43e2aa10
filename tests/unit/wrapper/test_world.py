"""The world's file: what was saved is believed where it is of this log and not beyond the commits, and only there; a
kill leaves what stood in it before or after, never something between.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.unit.wrapper.simulation import ALERT, OWN, SimLog, SimReader, setting_of
from topics.catalogue import ALERT_CONFIGS, RECIPIENTS
from topics.codec import encode
from topics.events import Cause, Lane, RecipientChanged, Record
from topics.fetch import Spot
from wrapper.change import Change, Config, change_in
from wrapper.opening import fold_world
from wrapper.world import World

INPUTS = [Spot(ALERT_CONFIGS, 0), Spot(RECIPIENTS, 0), Spot("entities.vm", 0), Spot("entities.vm", 1)]
Damage = Callable[[Path], object]


class CountingReader(SimReader):
    """Knows how many records were read to fold a world."""

    folded = 0

    def range(self, positions: dict[Spot, tuple[int, int]]) -> Iterator[Record]:
        for record in super().range(positions):
            self.folded += 1
            yield record


def _log(records: int = 200, seed: int = 1) -> SimLog:
    log = SimLog(random.Random(seed))
    log.ids = seed * 1_000_000
    for _ in range(records):
        log.produce()
    about: dict[str, Any] = {"recipient_id": "u", "version": 1, "body": b'{"name":"\\ud800"}'}
    person = RecipientChanged(event_id=f"p{seed}", producer="t", occurred_at=0, **about)
    log.append(INPUTS[1], "u", encode(person))
    return log


def _ends(log: SimLog) -> dict[Spot, int]:
    return {s: len(log.partitions[s]) for s in INPUTS}


def _half(log: SimLog) -> dict[Spot, int]:
    return {s: len(log.partitions[s]) // 2 for s in INPUTS}


def _truth(log: SimLog, upto: dict[Spot, int], alert: str = ALERT.name) -> dict[tuple[str, str], Change]:
    """A dict and a loop."""
    found: dict[tuple[str, str], Change] = {}
    for spot, end in upto.items():
        for offset in range(end):
            change = change_in(log.record(spot, offset), alert)
            found.pop((change.kind, change.id), None)
            if change.value is not None:
                found[change.kind, change.id] = replace(change, timestamp=0)
    return found


def _told(world: World) -> dict[tuple[str, str], Change]:
    return {(c.kind, c.id): c for c in world.things()}


def _fold(log: SimLog, world: World, upto: dict[Spot, int], **other: Any) -> int:
    """How many records that took; the world is then the log's."""
    reader, setting = CountingReader(log), replace(setting_of(log, "test"), **other)
    fold_world(reader, setting, world, upto)
    assert _told(world) == _truth(log, upto, setting.alert.name)
    assert {s: r.next for s, r in world.reached.items()} == upto
    return reader.folded


def test_a_start_reads_on_from_where_the_world_was_saved(tmp_path: Path) -> None:
    log, file = _log(), tmp_path / "a" / "world"
    world = World(file)
    half = _fold(log, world, _half(log))
    assert half == sum(_half(log).values())
    world.close()
    world = World(file)
    assert _fold(log, world, _ends(log)) == sum(_ends(log).values()) - half
    assert _fold(log, world, _ends(log)) == 0
    lane, cause = Lane("s", "email", "recipient", "ü", 5), Cause("id", ALERT_CONFIGS, 0, 5)
    config = Config('{"metric" : 1.10}', "1.10", (lane,), '{"x":1}', cause)
    world.put(Change(INPUTS[0], 5, 0, "config", "a", "", config, "", "id"))
    world.save()
    assert world.config("a") == config


@pytest.mark.parametrize("why", ["ahead", "another log", "a truncated log", "another alert", "something is skipped"])
def test_a_world_that_is_not_of_this_log_and_alert_is_folded_anew(why: str) -> None:
    log, world = _log(), World()
    _fold(log, world, _ends(log))
    upto, other = _ends(log), dict[str, Any]()
    if why == "ahead":
        upto = _half(log)
    elif why == "another log":
        log = _log(300, seed=2)
        upto = _ends(log)
    elif why == "a truncated log":  # and written to again, beyond where it was read to
        spot = INPUTS[2]
        del log.partitions[spot][-5:]
        for _ in range(80):
            log.produce()
        upto = _ends(log)
    elif why == "something is skipped":
        other = {"skipped": {(OWN, 0)}}
    else:
        other = {"alert": ALERT.model_copy(update={"name": "another"})}
    assert _fold(log, world, upto, **other) == sum(upto.values())


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def _scribble(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[4096 : len(data)] = os.urandom(len(data) - 4096)
    file.write_bytes(data)


def _change_a_digit(file: Path) -> None:
    data = file.read_bytes()
    assert b'"cpu": 95' in data
    file.write_bytes(data.replace(b'"cpu": 95', b'"cpu": 15'))


@pytest.mark.parametrize(
    "damage", [Path.unlink, _cut, _scribble, lambda f: f.write_bytes(b"x" * 9000), lambda f: f.write_bytes(b"")]
)
def test_a_damaged_file_is_folded_anew(damage: Damage, tmp_path: Path) -> None:
    log, file = _log(), tmp_path / "world"
    world = World(file)
    _fold(log, world, _ends(log))
    world.close()
    damage(file)
    world = World(file)
    assert _fold(log, world, _ends(log)) == sum(_ends(log).values())


def test_text_that_is_not_what_was_written_is_no_world(tmp_path: Path) -> None:
    log, file = _log(), tmp_path / "world"
    world = World(file)
    _fold(log, world, _ends(log))
    world.close()
    _change_a_digit(file)
    with pytest.raises(sqlite3.DatabaseError):
        list(World(file).things())


def test_two_on_one_file_have_a_world_each(tmp_path: Path) -> None:
    log, file = _log(), tmp_path / "world"
    first, second = World(file), World(file)
    for world in (first, second):
        assert _fold(log, world, _half(log)) == sum(_half(log).values())
        assert _fold(log, world, _ends(log)) > 0
    first.close()
    assert _fold(log, World(file), _ends(log)) == 0


def test_a_folder_that_can_not_be_written_only_costs_time(tmp_path: Path) -> None:
    log = _log()
    (tmp_path / "taken").write_text("")
    assert _fold(log, World(tmp_path / "taken" / "world"), _ends(log)) == sum(_ends(log).values())


def _live_and_die(log: SimLog, file: Path, steps: int) -> None:
    """Change after change, until a kill; what the log accepts lags behind."""
    world, count, accepted = World(file), 0, dict[Spot, int]()
    for i in range(200):
        for spot in INPUTS:
            if i < len(log.partitions[spot]):
                world.put(change_in(log.record(spot, i), ALERT.name))
        for step in (world.leave if world.full else None, partial(world.store, accepted)):
            if step is not None:
                step()
            count += 1
            if count == steps:
                os.kill(os.getpid(), signal.SIGKILL)
        if i % 3 == 0:
            accepted = {s: min(i, len(log.partitions[s])) for s in INPUTS}


def test_a_kill_between_any_two_steps_leaves_a_world_of_one_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wrapper.world.CHANGED_BYTES", 2500)
    monkeypatch.setattr("wrapper.world.ROWS_AT_ONCE", 1)
    log, moments = _log(400), set[int]()
    for steps in range(1, 200, 13):
        file = tmp_path / str(steps)
        if (pid := os.fork()) == 0:
            try:
                _live_and_die(log, file, steps)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        world = World(file)
        reached = {s: r.next for s, r in world.reached.items()}
        assert _told(world) == _truth(log, reached)
        moments.add(sum(reached.values()))
        assert _fold(log, world, _ends(log)) > 0
    assert len(moments) > 3
