"""Kills between any two steps, zombies, sends that fail, arrive late or twice: the effects are those of one
uninterrupted program.
"""

from __future__ import annotations

import random

import pytest

from tests.unit.wrapper.simulation import Program, SimLog, Truth, Wrapper, the_run, truth
from topics.fetch import Spot
from wrapper.opening import Opened

SCHEDULES = 120


def _schedule(seed: int) -> None:  # noqa: C901 - a table of faults
    rng = random.Random(seed)
    batch, forgetful = rng.choice((1, 1, 3)), rng.random() < 0.3
    log, ghosts = SimLog(rng), dict[int, Opened]()
    count = 0

    def start() -> Wrapper:
        nonlocal count
        count += 1
        return Wrapper(log, count, Program(batch, forgetful=forgetful), ghosts)

    running, frozen = [start()], list[Wrapper]()
    for _ in range(1500):
        chance = rng.random()
        if chance < 0.04:
            log.produce()
        elif chance < 0.07:
            log.clock += rng.choice((1, 2, 3, 5, 8))
        elif chance < 0.0715 and running:
            running.pop(rng.randrange(len(running))).end()  # kill -9 of a wrapper
        elif chance < 0.0745 and len(running) < 2:
            running.append(start())
        elif chance < 0.076 and running:
            frozen.append(running.pop(rng.randrange(len(running))))
        elif chance < 0.079 and frozen:
            running.append(frozen.pop(rng.randrange(len(frozen))))  # a zombie comes back
        elif chance < 0.081 and running:
            running[-1].child.alive = False  # kill -9 of a program
        elif chance < 0.3 and running:
            rng.choice(running).child.step()
        elif running:
            wrapper = rng.choice(running)
            if next(wrapper.steps, "over") == "over":
                running.remove(wrapper)
                wrapper.end()
    _calm_down(log, start())
    _judge(log, truth(log), ghosts, batch=batch, forgetful=forgetful)


def _calm_down(log: SimLog, last: Wrapper) -> None:
    while log.limbo:
        log.append(Spot("notice-requests", 0), "load", log.limbo.pop())
    log.calm = True
    produced = {s: len(p) for s, p in log.partitions.items()}
    for step in range(6000):
        last.child.step()
        if next(last.steps, "over") == "over":
            pytest.fail("the last wrapper was fenced by nobody")
        log.clock += step % 50 == 0
        done = truth(log).chain.fold.positions if step % 100 == 99 else None
        if done and all(done[s] >= produced[s] for s in done):
            return
    pytest.fail("input was left unread")


def _judge(log: SimLog, found: Truth, ghosts: dict[int, Opened], *, batch: int, forgetful: bool) -> None:
    fold = found.chain.fold
    assert fold.positions is not None
    assert found.first_run is not None
    if batch == 1:
        first = ghosts[found.first_run]
        expected = the_run(log, first, fold.now, fold.positions, forgetful=forgetful)
        assert found.effects == expected


@pytest.mark.parametrize("part", range(4))
def test_effects_are_those_of_an_uninterrupted_run(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wrapper.conversation.WINDOW", 4)
    monkeypatch.setattr("wrapper.world.CHANGED_BYTES", 700)  # two changes or three
    monkeypatch.setattr("wrapper.world.ROWS_AT_ONCE", 2)
    monkeypatch.setattr("wrapper.commits.COMMIT_BYTES", 700)  # two effects: commits are split
    for seed in range(part, SCHEDULES, 4):
        try:
            _schedule(seed)
        except AssertionError as error:
            msg = f"seed {seed}"
            raise AssertionError(msg) from error
