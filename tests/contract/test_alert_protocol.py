"""The published schema of the alert protocol is that of the code, and what the wrapper says keeps to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from topics.events import Cause
from topics.fetch import Spot
from wrapper import lines, protocol
from wrapper.change import Change, Config, Entity, Recipient
from wrapper.schema import schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "alert-protocol.schema.json"
CAUSE = Cause("e", "t", 0, 0)
AT = (Spot("t", 0), 0, 0)
CONFIG = Config('{"id":"c","metric":1.10}', "1.10", (), "", CAUSE)
ENTITY = Entity('{"cpu":1}', 5, CAUSE)
HEARD = [
    lines.hello(alert="a", shard=0, shards=1, gap=True, now=1, state=None, open_keys=["k"]),
    lines.hello(alert="a", shard=1, shards=4, gap=False, now=1, state='{"a":1}', open_keys=[]),
    lines.change(1, 2, Change(*AT, "config", "c", value=CONFIG), snapshot=True),
    lines.change(1, 2, Change(*AT, "config", "c", reason="disabled")),
    lines.change(1, 2, Change(*AT, "entity", "v", "vm", ENTITY)),
    lines.change(1, 2, Change(*AT, "entity", "v", "vm")),
    lines.change(1, 2, Change(*AT, "recipient", "r", value=Recipient('{"name":"Ann"}'))),
    lines.change(1, 2, Change(*AT, "recipient", "r")),
    lines.ready(3, 2, {"config": 1, "entity": 0, "recipient": 1}),
    lines.tick(4, 60_000),
]
SAID = [
    '{"type":"hello","v":1,"tick_s":0.5,"wants":["config"],"state":"drop"}',
    '{"type":"notice","key":"k","config":"c","title":"t","data":{"value":1.10},"to":{"email":["7"]},"later":1}',
    '{"type":"resolve","key":"k","data":[1]}',
    '{"type":"error","config":"c","text":"t"}',
    '{"type":"done","seq":5,"state":{"a":1}}',
    '{"type":"done"}',
]
WRONG = [
    '{"type":"notice","key":"k","config":"c"}',
    '{"type":"notice","key":"","config":"c","title":"t"}',
    '{"type":"notice","key":"k","config":"c","title":"t","severity":"loud"}',
    '{"type":"hello","v":2}',
    '{"type":"error"}',
    '{"type":"other"}',
]


def of(direction: str) -> jsonschema.Draft202012Validator:
    whole = schema()
    return jsonschema.Draft202012Validator({"$defs": whole["$defs"]} | whole["properties"][direction])


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(DOCUMENT.read_text()) == schema(), "python -m wrapper.schema > docs/alert-protocol.schema.json"
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("line", HEARD)
def test_what_a_program_hears_keeps_to_the_schema(line: bytes) -> None:
    heard: dict[str, Any] = json.loads(line)
    of("stdin").validate(heard)
    assert not of("stdin").is_valid(heard | {"type": "notice"})
    known = schema()["$defs"][f"{heard['type'].capitalize()}Line"]["properties"]
    assert set(heard) <= set(known), "every member that is given is in the schema"


@pytest.mark.parametrize("line", SAID)
def test_what_the_wrapper_takes_keeps_to_the_schema(line: str) -> None:
    assert not isinstance(protocol.parse(line.encode()), protocol.Stray | protocol.Rejected)
    of("stdout").validate(json.loads(line))


@pytest.mark.parametrize("line", WRONG)
def test_what_the_wrapper_refuses_does_not(line: str) -> None:
    assert isinstance(protocol.parse(line.encode()), protocol.Rejected)
    assert not of("stdout").is_valid(json.loads(line))
