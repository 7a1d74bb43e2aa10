"""What a program is given and when, and what becomes of what it says: sections 3 and 4 of the alert protocol."""

from __future__ import annotations

import json

import pytest

from tests.unit.wrapper.rig import CONFIGS, LANES, OTHER_VMS, VMS, Rig, config, vm
from wrapper.chain import Open
from wrapper.conversation import WINDOW

ABOUT = Open("n1", "c", "vm", "v", "warning")


def test_the_snapshot_comes_before_ready_and_every_line_but_hello_has_a_number() -> None:
    rig = Rig(configs="cd", vms="vw")
    hello = rig.hello()
    assert (hello["type"], hello["v"], hello["shard"], hello["resumed"], hello["gap"]) == (
        "hello",
        [1],
        "1/1",
        True,
        False,
    )
    lines = rig.given()
    assert [line["type"] for line in lines] == ["config", "config", "entity", "entity", "ready"]
    assert [line["seq"] for line in lines] == [1, 2, 3, 4, 5]
    assert all(line["snapshot"] for line in lines[:-1])
    assert lines[-1]["count"] == {"config": 2, "entity": 2, "recipient": 0}


def test_nothing_is_committed_before_ready_is_done() -> None:
    rig = Rig(vms="v")
    rig.hello()
    rig.given()
    rig.notice()
    rig.done(seq=2)
    assert rig.committed(100) == []
    rig.done(seq=3)
    assert rig.effects() == [("raise", "k")]


def test_what_is_printed_without_a_done_does_not_count() -> None:
    rig = Rig().started()
    rig.change(vm("v", 10, 2000))
    rig.given()
    rig.notice()
    assert rig.committed(100) == []


def test_a_program_that_wants_only_configs_is_told_of_nothing_else_and_positions_still_move() -> None:
    rig = Rig().started(wants=["config"])
    rig.change(vm("v", 10, 2000))
    assert rig.given() == []
    (commit,) = rig.committed(100)
    assert {n.topic: n.next for n in commit.positions if n.partition == 0}["entities.vm"] == 11


def test_lines_come_by_timestamp_then_topic_partition_and_offset_below_the_horizon() -> None:
    rig = Rig().started()
    rig.change(
        vm("b", 10, 2005, spot=OTHER_VMS), vm("a", 10, 2005), vm("c", 11, 2007), config("d", 10, 2001), horizon=2007
    )
    assert [line["id"] for line in rig.given()] == ["d"]  # a config is given alone
    rig.done()
    assert [line["id"] for line in rig.given()] == ["a", "b"]
    rig.horizon(2008)
    assert [line["id"] for line in rig.given()] == ["c"]


def test_nothing_is_given_while_something_earlier_may_still_come() -> None:
    rig = Rig().started()
    rig.talk.inputs.add(vm("a", 10, 2005))
    rig.talk.inputs.horizon(3000, {OTHER_VMS: 11})
    assert rig.given() == []
    rig.talk.inputs.add(vm("b", 10, 2004, spot=OTHER_VMS))
    assert [line["id"] for line in rig.given()] == ["b", "a"]


def test_time_on_the_lines_never_goes_back() -> None:
    rig = Rig().started()
    rig.change(vm("a", 10, 2005))
    assert [line["now"] for line in rig.given()] == [2005]
    rig.change(vm("b", 10, 1500, spot=OTHER_VMS))
    assert [line["now"] for line in rig.given()] == [2005]


def test_ticks_stand_on_their_grid_before_what_comes_at_that_time_and_wait_for_their_done() -> None:
    rig = Rig().started(tick_s=1)
    rig.change(vm("a", 10, 2000), vm("b", 11, 2500), horizon=3000)
    assert [(line["type"], line["now"]) for line in rig.given()] == [("tick", 2000), ("entity", 2000), ("entity", 2500)]
    rig.done()
    assert [(line["type"], line["now"]) for line in rig.given()] == [("tick", 3000)]


def test_no_tick_is_skipped_after_a_long_time() -> None:
    rig = Rig().started(tick_s=1)
    rig.horizon(5500)
    times = []
    while given := rig.given():
        times += [line["now"] for line in given]
        rig.done()
    assert times == [2000, 3000, 4000, 5000]


def test_the_window_is_never_exceeded() -> None:
    rig = Rig().started()
    rig.change(*(vm("a", 10 + i, 2000) for i in range(WINDOW + 50)))
    assert len(rig.given()) == WINDOW
    rig.done()
    assert len(rig.given()) == 1


def test_a_delete_is_given_alone() -> None:
    rig = Rig(vms="v").started()
    rig.change(vm("a", 10, 2000), vm("v", 11, 2001, None), vm("b", 12, 2002))
    assert [line["id"] for line in rig.given()] == ["a"]
    rig.done()
    assert [(line["id"], line["op"]) for line in rig.given()] == [("v", "delete")]
    rig.done()
    assert [line["id"] for line in rig.given()] == ["b"]


def test_an_open_key_is_not_raised_again_but_can_be_updated_under_its_id() -> None:
    rig = Rig(vms="v").started()
    rig.notice()
    rig.done()
    (first,) = rig.committed()[0].effects
    rig.notice()
    rig.notice(update=True, severity="error", data=5)
    rig.say({"type": "resolve", "key": "k"}, {"type": "resolve", "key": "k"})
    rig.done()
    update, resolve = rig.committed()[0].effects
    assert (update.op, update.notice_id, update.severity) == ("update", first.notice_id, "error")
    assert (resolve.op, resolve.notice_id) == ("resolve", first.notice_id)
    assert rig.talk.dropped == {"raise of an open key": 1, "resolve of a closed key": 1}


def test_an_event_is_said_once_in_thirty_days_of_log_time() -> None:
    rig = Rig().started()
    rig.notice(kind="event")
    rig.notice(kind="event")
    rig.done()
    assert rig.effects() == [("event", "k")]
    month = 30 * 86_400_000
    for offset, at, said in ((10, 1000 + month - 1, []), (11, 1000 + month, [("event", "k")])):
        rig.change(vm("v", offset, at))
        rig.given()
        rig.notice(kind="event")
        rig.done()
        assert rig.effects() == said


def test_a_notice_carries_the_config_as_of_its_line_and_the_entity() -> None:
    rig = Rig(configs="").started()
    rig.change(config("c", 10, 2000, metric='{"high":1.10}'), vm("v", 10, 2001, '{"cpu":9}'))
    rig.given()
    rig.done()
    rig.given()
    rig.notice(entity={"type": "vm", "id": "v"}, data={"x": 1}, link="/v")
    rig.done()
    (effect,) = rig.committed()[0].effects
    assert '"metric":{"high":1.10}' in effect.body.decode()
    assert json.loads(effect.body)["entity"] == {"cpu": 9}
    assert [(c.topic, c.offset) for c in effect.caused_by] == [("alert-configs", 10), ("entities.vm", 10)]
    assert (effect.now, effect.lanes, effect.forward) == (2001, LANES, "f")


def test_a_large_entity_is_left_out_of_the_body() -> None:
    rig = Rig().started()
    rig.change(vm("v", 10, 2000, json.dumps({"x": "y" * 17_000})))
    rig.given()
    rig.notice(entity={"type": "vm", "id": "v"})
    rig.done()
    (effect,) = rig.committed()[0].effects
    assert "entity" not in json.loads(effect.body)
    assert effect.entity_id == "v"


@pytest.mark.parametrize(
    ("to", "expected"),
    [(None, LANES), ({"email": ["u2", "u9"], "fax": ["u1"]}, LANES[1:2])],
)
def test_to_narrows_and_never_adds(to: dict[str, list[str]] | None, expected: object) -> None:
    rig = Rig().started()
    rig.notice(to=to)
    rig.done()
    assert rig.committed()[0].effects[0].lanes == expected


@pytest.mark.parametrize("to", [{}, {"email": ["u9"], "fax": ["u1"]}])
def test_to_has_to_leave_somebody(to: dict[str, list[str]]) -> None:
    rig = Rig().started()
    rig.notice(to=to)
    rig.done()
    assert [r.reason for r in rig.talk.rejected] == ["bad_field"]


def test_an_unknown_config_is_rejected() -> None:
    rig = Rig().started()
    rig.notice(config="x")
    rig.done()
    assert rig.effects(100) == []
    assert [r.reason for r in rig.talk.rejected] == ["unknown_config"]


def test_more_than_a_thousand_messages_between_two_done_are_rejected() -> None:
    rig = Rig().started()
    for i in range(1001):
        rig.notice(key=f"k{i}")
    rig.done()
    assert len(rig.effects()) == 1000
    assert [r.reason for r in rig.talk.rejected] == ["limit"]


@pytest.mark.parametrize("gone", [config("c", 10, 2000, gone=True), vm("v", 10, 2000, None)])
def test_the_wrapper_resolves_what_lost_its_config_or_entity(gone: object) -> None:
    rig = Rig(vms="v", open={"k": ABOUT}).started()
    rig.change(gone)  # type: ignore[arg-type]
    rig.given()
    rig.done()
    assert rig.effects() == [("resolve", "k")]


def test_a_notice_about_an_entity_that_is_not_there_ends_at_once() -> None:
    rig = Rig().started()
    rig.notice(entity={"type": "vm", "id": "nobody"})
    rig.done()
    assert rig.effects() == [("raise", "k"), ("resolve", "k")]


def test_after_a_gap_orphans_are_no_news_to_the_program_and_end_with_ready() -> None:
    rig = Rig(gap=True, open={"k": ABOUT, "l": Open("n2", "c", None, None, "info")})
    assert rig.hello()["open"] == ["l"]
    lines = rig.given()
    assert lines[-1]["type"] == "ready"
    rig.done(seq=lines[-1]["seq"])
    assert rig.effects() == [("resolve", "k")]


def test_after_a_gap_the_positions_are_on_the_log_at_once() -> None:
    rig = Rig(gap=True).started()
    (commit,) = rig.committed(0)
    assert (commit.number, commit.effects, len(commit.positions)) == (1, (), 4)


def test_a_silent_batch_waits_for_the_next_commit_or_five_seconds() -> None:
    rig = Rig().started()
    rig.change(vm("a", 10, 2000))
    rig.given()
    rig.done()
    assert rig.committed(4.9) == []
    (commit,) = rig.committed(5.1)
    assert commit.effects == ()
    assert rig.committed(20) == []  # nothing new


def test_state_is_written_only_where_it_changed() -> None:
    rig = Rig().started()
    written: list[bool] = []
    for state in ({"a": 1.5}, {"a": 1.5}, None):
        rig.notice(key=f"k{len(written)}")
        rig.done(state=state)
        written.append(rig.committed()[0].state_changed)
    assert written == [True, False, True]


def test_a_state_that_cannot_be_used_is_dropped() -> None:
    rig = Rig()
    rig.talk.fold.state = '{"old":1}'
    rig.started(state="drop")
    assert rig.talk.fold.state is None


def test_the_config_of_another_alert_only_moves_the_position() -> None:
    rig = Rig().started()
    rig.change(config("other", 10, 2000, gone=True))
    assert rig.given() == []
    assert rig.talk.fold.positions is not None
    assert rig.talk.fold.positions[CONFIGS] == 11


def test_a_done_for_a_line_not_given_is_rejected() -> None:
    rig = Rig().started()
    rig.done(seq=99)
    assert [r.reason for r in rig.talk.rejected] == ["bad_field"]


def test_a_done_may_cover_many_lines_and_a_later_one_none() -> None:
    rig = Rig().started()
    rig.change(*(vm("a", 10 + i, 2000 + i) for i in range(5)))
    last = rig.given()[-1]["seq"]
    rig.done(seq=last)
    rig.notice()
    rig.done()
    assert rig.effects() == [("raise", "k")]
    assert rig.talk.fold.positions is not None
    assert rig.talk.fold.positions[VMS] == 15


def test_in_plain_mode_whatever_is_given_is_done_and_each_notice_is_a_commit() -> None:
    rig = Rig(vms="v", gap=True, plain=True)
    assert [line["type"] for line in rig.given()] == ["config", "entity", "ready"]
    assert rig.talk.ready
    rig.notice("k")
    rig.notice("k")  # by its key
    rig.say({"type": "resolve", "key": "k"})
    assert rig.effects() == [("raise", "k"), ("resolve", "k")]
    rig.change(vm("w", 11, 2000))
    assert [line["id"] for line in rig.given()] == ["w"]
    assert not rig.talk.undone


def test_suspects_are_given_alone_and_after_a_while_without_anything_outstanding() -> None:
    rig = Rig(vms="vw", suspects=frozenset({(VMS, 0), (VMS, 11)}))
    rig.hello()

    def given(at: float) -> list[str]:
        return [str(json.loads(line).get("id", "ready")) for line in rig.talk.lines(at)]

    assert given(1) == ["c", "w"]
    assert given(2) == []  # both are outstanding
    rig.done(seq=2)
    assert given(3) == []  # perhaps the program is about to end
    assert given(3.1) == []
    assert given(3.3) == ["v"]
    assert [line.at for line in rig.talk.undone] == [(VMS, 0)]
    assert given(9) == []
    rig.done()
    assert given(9) == ["ready"]
    rig.done()
    rig.change(vm("x", 11, 2000), vm("y", 12, 2000))
    assert given(10) == []
    assert given(10.3) == ["x"]
    assert given(11) == []
    rig.done()
    assert given(11) == ["y"]
