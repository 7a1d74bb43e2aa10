"""What a reader of the chain accepts, how a commit is sent again, and what a checkpoint is worth."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.unit.wrapper.rig import Rig, event
from topics.codec import decode, encode
from topics.events import AlertCommitted, AlertMoved, AlertStarted, Effect, Event, Next, Record
from topics.fetch import Spot
from wrapper.chain import Chain, Chains, Open, Verdict
from wrapper.checkpoint import Checkpoints, parts
from wrapper.commits import COMMIT_BYTES


def _at(offset: int, it: Event) -> Record:
    return Record("notice-requests", 0, offset, 1000 + offset, "a", it)


def _start(shards: int = 1, alert: str = "a") -> AlertStarted:
    return AlertStarted(event_id="s", producer="t", occurred_at=0, alert=alert, shard=0, shards=shards, instance="i")


def _effect(op: str, key: str) -> Effect:
    return Effect(op, key, f"n-{key}", 5, "c", None, None, "info", (), "", (), None, b"{}")


def _commit(run: int, number: int, *effects: Effect, more: bool = False) -> AlertCommitted:
    return AlertCommitted(
        event_id=f"{run}-{number}",
        producer="t",
        occurred_at=0,
        alert="a",
        shard=0,
        run=run,
        number=number,
        more=more,
        effects=effects,
        positions=() if more else (Next("entities.vm", 0, number),),
        now=number,
        state_changed=False,
        state=b"",
    )


def _verdicts(chain: Chain, *events: Event) -> list[Verdict]:
    return [chain.apply(_at(chain.upto, e)) for e in events]


def test_only_the_next_number_of_the_newest_run_counts() -> None:
    chain = Chain("a", 0)
    found = _verdicts(
        chain,
        _commit(0, 1),
        _start(),
        _commit(1, 1, _effect("raise", "k")),
        _commit(1, 1, _effect("raise", "k")),
        _commit(1, 3),
        _start(),
        _commit(1, 2),
        _start(alert="b"),
        _commit(5, 1, _effect("resolve", "k")),
    )
    ok, no = Verdict.ACCEPTED, Verdict.REFUSED
    assert found == [no, Verdict.STARTED, ok, no, no, Verdict.STARTED, no, Verdict.OTHER, ok]
    assert not chain.fold.open


def test_parts_of_a_commit_count_together_and_a_start_in_between_voids_them() -> None:
    chain = Chain("a", 0)
    _verdicts(chain, _start(), _commit(0, 1, _effect("raise", "k"), more=True))
    assert not chain.fold.open
    _verdicts(chain, _start(), _commit(2, 1, _effect("raise", "l")))
    assert list(chain.fold.open) == ["l"]
    _verdicts(chain, _commit(2, 2, _effect("raise", "m"), more=True), _commit(2, 3, _effect("raise", "n")))
    assert list(chain.fold.open) == ["l", "m", "n"]
    assert chain.fold.positions == {Spot("entities.vm", 0): 3}


def test_a_move_ends_all_runs_and_refuses_other_numbers_of_shards() -> None:
    chain = Chain("a", 0)
    moved = AlertMoved(event_id="m", producer="t", occurred_at=0, alert="a", shards=2)
    found = _verdicts(chain, _start(), _commit(0, 1, _effect("raise", "k")), moved, _commit(0, 2), _start(), _start(2))
    assert found[2:] == [Verdict.MOVED, Verdict.REFUSED, Verdict.REFUSED, Verdict.STARTED]
    assert chain.stale
    assert list(chain.fold.open) == ["k"]
    assert chain.fold.positions is None


def _of_shard(shard: int, event: AlertStarted | AlertCommitted) -> AlertStarted | AlertCommitted:
    return replace(event, shard=shard)


def test_after_moves_every_open_key_belongs_to_one_shard_and_none_is_lost() -> None:
    """Random runs, commits and moves, against an oracle that knows no shards."""
    rng = random.Random(7)
    for _ in range(200):
        chains, offset, shards = Chains("a", lambda o, n: int(o.config_id) % n), 0, 1
        open_: dict[str, int] = {}  # key -> its config
        runs: dict[int, int] = {}
        numbers: dict[int, int] = {}
        own = [Chain("a", i) for i in range(4)]

        def put(event: Event) -> None:
            nonlocal offset
            record = _at(offset, event)
            chains.apply(record)  # noqa: B023
            for chain in own:  # noqa: B023
                chain.apply(record)
            offset += 1

        for _ in range(60):
            shard = rng.randrange(shards)
            match rng.random():
                case r if r < 0.1:
                    shards, runs = rng.randint(1, 4), {}
                    put(AlertMoved(event_id="m", producer="t", occurred_at=0, alert="a", shards=shards))
                case r if r < 0.25:
                    runs[shard], numbers[shard] = offset, 0
                    put(_of_shard(shard, _start(shards)))
                case r if r < 0.3:
                    put(_of_shard(shard, _start(shards + 1)))  # of a file that is not the log's
                case _ if shard in runs:
                    numbers[shard] += 1
                    mine = [k for k, config in open_.items() if config % shards == shard]
                    if mine and rng.random() < 0.4:
                        effect = _effect("resolve", rng.choice(mine))
                        del open_[effect.key]
                    else:
                        config = rng.randrange(4) * shards + shard
                        effect = replace(_effect("raise", f"k{offset}"), config_id=str(config))
                        open_[effect.key] = config
                    put(_of_shard(shard, _commit(runs[shard], numbers[shard], effect)))
        found = [chains.of(i).fold.open for i in range(shards)]
        assert {k: int(o.config_id) for each in found for k, o in each.items()} == open_
        assert all(int(o.config_id) % shards == i for i, each in enumerate(found) for o in each.values())
        assert sum(map(len, found)) == len(open_)
        for i in range(shards):  # who follows only its own shard knows when that is not enough
            if not own[i].stale:
                assert own[i].fold.open == chains.of(i).fold.open
                assert (own[i].run, own[i].number) == (chains.of(i).run, chains.of(i).number)


def test_a_commit_that_failed_is_sent_again_unchanged_and_nothing_else_meanwhile() -> None:
    rig = Rig().started()
    rig.notice("k")
    rig.done()
    (first,) = rig.talk.commit(1)
    rig.notice("l")
    rig.done()
    assert rig.talk.commit(2) == []
    assert rig.commits.again(3, failed=False) == []
    assert rig.commits.again(4, failed=True) == [first]
    assert rig.commits.again(40, failed=False) == [first]  # not read back for 30 s
    rig.commits.read_back(1, 41)
    (second,) = rig.talk.commit(42)
    assert (event(second).number, [e.key for e in event(second).effects]) == (2, ["l"])


def test_a_large_commit_is_split_and_names_its_notices_by_part_and_index() -> None:
    rig = Rig().started()
    for i in range(20):
        rig.notice(f"k{i}", data="x" * 60_000)
    rig.done(state=[1])
    sealed = rig.talk.commit(1)
    events = [event(s) for s in sealed]
    assert [e.more for e in events] == [True] * (len(events) - 1) + [False]
    assert [e.number for e in events] == list(range(1, len(events) + 1))
    assert all(len(s.data) < COMMIT_BYTES + 100_000 for s in sealed)
    assert [e.state_changed for e in events][-2:] == [False, True]
    ids = [f.notice_id for e in events for f in e.effects]
    assert len(set(ids)) == 20
    chain = Chain("a", 0)
    chain.run, chain.upto = 7, 8
    assert _verdicts(chain, *events)[-1] is Verdict.ACCEPTED
    assert len(chain.fold.open) == 20
    assert chain.fold.state == "[1]"


@pytest.fixture
def chain() -> Chain:
    chain = Chain("a", 0)
    _verdicts(chain, _start(), _commit(0, 1, _effect("raise", "k"), _effect("event", "e")))
    chain.fold.state = '{"é":1.10}'
    return chain


def _read(*found: object) -> Chain:
    checkpoints = Checkpoints("a", 0)
    for i, it in enumerate(found):
        checkpoints.take(_at(i, it))  # type: ignore[arg-type]
    return checkpoints.chain(100)


def test_a_checkpoint_gives_the_same_fold_run_and_number(chain: Chain) -> None:
    ((key, part),) = parts(chain, "t")
    assert key == "a/0/0"
    again = _read(decode(encode(part)))
    assert (again.fold, again.run, again.number, again.upto) == (chain.fold, chain.run, chain.number, chain.upto)


def test_mixed_partial_or_future_checkpoints_count_as_none(chain: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wrapper.checkpoint.PART_BYTES", 50)
    chain.fold.open |= {f"key {i}": Open(f"{i * 7919}", "c", None, None, "info") for i in range(50)}
    old, new = ([p for _, p in parts(chain, "t")] for _ in range(2))
    assert len(new) > 2
    assert _read(*old, *new).fold == chain.fold
    assert _read(*old, *new[:1]).upto == 0
    assert _read(*new[:-1]).upto == 0
    assert _read(*(replace(p, upto=101) for p in new)).upto == 0


def test_no_checkpoint_is_made_of_half_a_commit(chain: Chain) -> None:
    _verdicts(chain, _commit(0, 2, more=True))
    with pytest.raises(ValueError, match="whole commits"):
        parts(chain, "t")
