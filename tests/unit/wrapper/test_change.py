"""What a record means to one alert, and the clock that decides how far inputs may be given."""

from __future__ import annotations

import time

import pytest

from topics.events import AlertConfigured, EntityChanged, Event, RecipientChanged, Record, TopicOpened
from wrapper.change import Config, Entity, Unreadable, change_in
from wrapper.clock import Clock


def _record(event: Event | None, topic: str = "entities.vm", key: str = "k") -> Record:
    return Record(topic, 0, 5, 1000, key, event)


def _config(name: str = "a", body: bytes = b'{"metric" : 1.10}', *, enabled: bool = True) -> Event:
    return AlertConfigured(
        event_id="e",
        producer="t",
        occurred_at=0,
        config_id="c",
        version=1,
        name=name,
        enabled=enabled,
        lanes=(),
        forward="",
        body=body,
    )


def _entity(body: bytes | None, op: str = "updated", at: int | None = None) -> Event:
    return EntityChanged(
        event_id="e", producer="t", occurred_at=0, entity_type="vm", entity_id="v", op=op, at=at, body=body
    )


def test_a_config_keeps_its_metric_as_text() -> None:
    change = change_in(_record(_config()), "a")
    assert isinstance(change.value, Config)
    assert change.value.metric == "1.10"


@pytest.mark.parametrize(
    ("event", "reason"),
    [(_config(enabled=False), "disabled"), (_config("b"), "renamed"), (_config("b", enabled=False), "renamed")],
)
def test_a_disabled_or_renamed_config_is_gone_for_the_program(event: Event, reason: str) -> None:
    change = change_in(_record(event), "a")
    assert (change.kind, change.id, change.value, change.reason) == ("config", "c", None, reason)


def test_a_body_on_several_lines_becomes_one_line_and_is_else_untouched() -> None:
    change = change_in(_record(_entity(b'{\r\n "a": "x  y",\n "n": 1.10 }')), "a")
    assert isinstance(change.value, Entity)
    assert change.value.text == '{"a":"x  y","n":1.10}'


def test_programs_see_no_addresses() -> None:
    event = RecipientChanged(
        event_id="e",
        producer="t",
        occurred_at=0,
        recipient_id="u",
        version=1,
        body=b'{"name":"Ann","addresses":{"email":"a@b"},"locale":"de"}',
    )
    change = change_in(_record(event, "recipients"), "a")
    assert change.value is not None
    assert change.value.text == '{"name":"Ann","locale":"de"}'


@pytest.mark.parametrize("body", [None, b"", b"[1]", b"{", b"\xff", b'{"a":NaN}', b"[" * 100_000])
def test_a_body_that_is_no_object_is_unreadable(body: bytes | None) -> None:
    with pytest.raises(Unreadable):
        change_in(_record(_entity(body)), "a")


def test_tombstones_are_deletes_of_their_topic() -> None:
    found = [change_in(_record(None, t), "a") for t in ("entities.vm", "alert-configs", "recipients")]
    assert [(c.kind, c.id, c.entity_type) for c in found] == [
        ("entity", "k", "vm"),
        ("config", "k", ""),
        ("recipient", "k", ""),
    ]


def test_the_opening_of_a_topic_says_nothing() -> None:
    event = TopicOpened(event_id="e", producer="t", occurred_at=0, topic="entities.vm", partition=0, partitions=1)
    assert change_in(_record(event), "a").kind == "nothing"


def test_a_broker_whose_clock_is_ahead_does_not_stop_the_flow() -> None:
    clock = Clock()
    ahead = time.time_ns() // 1_000_000 + 60_000
    clock.saw(ahead)
    assert clock.now() >= ahead
    clock.saw(5)
    assert clock.now() >= ahead
