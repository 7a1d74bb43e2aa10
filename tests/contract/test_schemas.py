"""The log is kept for ever: schemas only grow, and every example can be read.

No two schemas look alike in a record's head.
"""

import copy
import dataclasses
import json
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer

from topics import codec
from topics.catalogue import Catalogue
from topics.codec import Undecodable, UnknownSchema, decode, encode, event_types, remember
from topics.events import Event
from topics.schemas import DIRECTORY, Schema, all_schemas, newest_schemas, parse

EXAMPLES = sorted(DIRECTORY.glob("*.example.json"))
OPENED = json.loads((DIRECTORY / "TopicOpened.example.json").read_text())


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """What keeps readers of one of two schemas from reading the other: empty if both ways work."""
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type") == "record":
        before, after = ({f["name"]: f for f in s["fields"]} for s in (old, new))
        lone = [(n, after[n], "added") for n in after.keys() - before.keys()]
        lone += [(n, before[n], "removed") for n in before.keys() - after.keys()]
        out = [f"{where}{n} is {how} without a default" for n, f, how in lone if "default" not in f]
        for n in before.keys() & after.keys():
            out += differences(before[n]["type"], after[n]["type"], f"{where}{n}.")
            if ("default" in before[n]) > ("default" in after[n]):
                out.append(f"{where}{n} lost its default")
        return out
    if isinstance(old, dict) and isinstance(new, dict) and old.get("type") == new.get("type") == "array":
        return differences(old["items"], new["items"], where)
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [d for a, b in zip(old, new, strict=True) for d in differences(a, b, where)]
    return [] if old == new else [f"{where.rstrip('.')} changed its type from {old} to {new}"]


def from_example(event: str, fields: dict[str, Any]) -> Event:
    """The event that an example shows."""
    return decode(written(event, fields))


def written(event: str, fields: dict[str, Any]) -> bytes:
    """What fastavro writes of an event's fields; bytes are written as text there."""
    schema = newest_schemas()[event]

    def shaped(kind: Any, value: Any) -> Any:
        if isinstance(kind, list):
            return value if value is None else shaped(next(k for k in kind if k != "null"), value)
        if kind == "bytes":
            return value.encode()
        if isinstance(kind, dict) and kind["type"] == "array":
            return [shaped(kind["items"], v) for v in value]
        if isinstance(kind, dict) and kind["type"] == "record":
            named[kind["name"].rpartition(".")[2]] = kind
            return {f["name"]: shaped(f["type"], value[f["name"]]) for f in kind["fields"]}
        if isinstance(kind, str) and kind.rpartition(".")[2] in named:
            return shaped(named[kind.rpartition(".")[2]], value)
        return value

    named: dict[str, Any] = {}
    out = BytesIO(b"\xc3\x01" + schema.fingerprint)
    out.seek(10)
    schemaless_writer(out, schema.parsed, shaped(schema.parsed, fields))
    return out.getvalue()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name.split(".")[0])
def test_every_example_is_read_and_written_again(path: Any) -> None:
    name = path.name.split(".")[0]
    event = from_example(name, json.loads(path.read_text()))
    assert type(event) is event_types()[name]
    assert encode(event) == written(name, json.loads(path.read_text()))


@pytest.mark.parametrize("number", [0, -1, 63, -64, 64, 4095, 4096, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("text", ["", "\u00e4" * 2047, "x" * 4095, "x" * 4096])
def test_numbers_and_texts_of_every_size_are_written_as_fastavro_does(number: int, text: str) -> None:
    fields = OPENED | {"occurred_at": number, "producer": text}
    assert encode(from_example("TopicOpened", fields)) == written("TopicOpened", fields)


def test_what_is_remembered_is_given_once_and_is_what_would_be_read() -> None:
    event = from_example("NoticeRaised", json.loads((DIRECTORY / "NoticeRaised.example.json").read_text()))
    data = encode(event)
    remember(data, event)
    assert decode(bytes(bytearray(data))) is event
    again = decode(data)
    assert again is not event
    assert again == event


@pytest.mark.parametrize(
    "fields", [{"occurred_at": 2**63}, {"occurred_at": "1"}, {"producer": None}, {"producer": "\ud800"}]
)
def test_what_no_schema_holds_is_not_written(fields: dict[str, Any]) -> None:
    event = from_example("TopicOpened", OPENED)
    with pytest.raises((AttributeError, TypeError, ValueError)):
        encode(dataclasses.replace(event, **fields))


def test_every_event_has_a_schema_an_example_and_a_topic() -> None:
    topics = Catalogue(("vm",)).topics().values()
    everywhere = {"TopicOpened"}
    assert set(newest_schemas()) == set(event_types()) == {p.name.split(".")[0] for p in EXAMPLES}
    assert {e for t in topics for e in t.events} | everywhere == set(event_types())


def test_a_dataclass_has_the_fields_of_its_newest_schema_in_their_order() -> None:
    for name, cls in event_types().items():
        fields = [f["name"] for f in newest_schemas()[name].parsed["fields"]]
        assert list(cls.__dataclass_fields__) == fields, name


def test_a_published_schema_never_changes() -> None:
    frozen = json.loads((DIRECTORY / "fingerprints.json").read_text())
    assert {f"{s.event}.v{s.version}": s.fingerprint.hex() for s in all_schemas()} == frozen


def test_no_two_schemas_share_a_fingerprint() -> None:
    prints = [s.fingerprint for s in all_schemas()]
    assert len(prints) == len(set(prints))


def test_each_version_reads_the_one_before_and_is_read_by_it() -> None:
    versions: dict[str, list[Schema]] = {}
    for schema in all_schemas():
        versions.setdefault(schema.event, []).append(schema)
    for found in versions.values():
        for old, new in pairwise(found):
            assert not differences(json.loads(old.text), json.loads(new.text)), (old.event, new.version)


def test_the_check_of_versions_can_fail() -> None:
    old = json.loads(newest_schemas()["Due"].text)
    grown, shrunk, changed = copy.deepcopy(old), copy.deepcopy(old), copy.deepcopy(old)
    grown["fields"].append({"name": "why", "type": "string"})
    shrunk["fields"].pop()
    changed["fields"][-1]["type"] = "string"
    assert all(differences(old, new) for new in (grown, shrunk, changed))
    grown["fields"][-1]["default"] = ""
    assert not differences(old, grown)


def test_a_record_of_an_old_version_is_read_by_todays_program() -> None:
    text = json.loads(newest_schemas()["SilenceEnded"].text)
    text["fields"] = [f for f in text["fields"] if f["name"] != "caused_by"]
    old = parse(json.dumps(text))
    out = BytesIO()
    out.write(b"\xc3\x01" + old.fingerprint)
    schemaless_writer(
        out, old.parsed, {"event_id": "e", "producer": "p", "occurred_at": 1, "silence_id": "s", "by": "ann"}
    )
    with pytest.raises(UnknownSchema):
        decode(out.getvalue())
    assert codec.learn(json.dumps(text))
    try:
        assert decode(out.getvalue()).caused_by == ()
    finally:
        codec._writers.pop(old.fingerprint)  # what was learned here is no other test's


@pytest.mark.parametrize("data", [b"", b"{}", b"\xc3\x01", b"\xc3\x01" + bytes(8), b"\xc4\x01" + bytes(20)])
def test_bytes_that_are_no_event_are_told_apart(data: bytes) -> None:
    with pytest.raises((Undecodable, UnknownSchema)):
        decode(data)


def test_a_cut_or_lengthened_body_is_undecodable() -> None:
    data = encode(from_example("Due", json.loads((DIRECTORY / "Due.example.json").read_text())))
    for broken in (data[:-1], data + b"x", data[:12] + b"\xff" * 30):
        with pytest.raises(Undecodable):
            decode(broken)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: p.name.split(".")[0])
def test_changed_bytes_are_read_as_the_library_reads_them_or_refused(path: Any) -> None:
    name = path.name.split(".")[0]
    good, schema, chance = encode(from_example(name, json.loads(path.read_text()))), newest_schemas()[name], Random(1)
    for _ in range(200):
        data = bytearray(good[: chance.choice((len(good), chance.randrange(10, len(good))))])
        for at in chance.sample(range(10, len(good)), min(chance.randrange(4), len(good) - 10)):
            data[at : at + 1] = bytes([chance.choice((0, 1, 2, 127, 128, 255, chance.randrange(256)))])
        with suppress(Undecodable):
            event, body = decode(bytes(data)), BytesIO(data[10:])
            assert plain(event) == schemaless_reader(body, schema.parsed, None)
            assert body.tell() == len(data) - 10


def plain(value: Any) -> Any:
    """As the library gives it."""
    if dataclasses.is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [plain(v) for v in value] if isinstance(value, tuple) else value
