"""The Avro schemas of `schemas/avro/`, one file a version: `<Event>.v<N>.avsc`.

The highest N is what is written today, all of them can be read. Fingerprints are CRC-64-AVRO of the
canonical form, in the byte order in which they stand in a record. The canonical form drops logical types, so they are
dropped before parsing too: numbers stay numbers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fastavro import parse_schema
from fastavro.schema import fingerprint, to_parsing_canonical_form

DIRECTORY = Path(__file__).resolve().parent.parent / "schemas" / "avro"


@dataclass(frozen=True, slots=True)
class Schema:
    """One parsed schema. `text` is the source; `fingerprint` the 8 bytes in a record's head."""

    event: str
    version: int
    fingerprint: bytes
    text: str
    parsed: Any


def parse(text: str, version: int = 0) -> Schema:
    """A schema from its JSON text. ValueError or fastavro's SchemaParseException when it is none."""
    plain = _without_logical_types(json.loads(text))
    if not isinstance(plain, dict) or plain.get("type") != "record":
        msg = "an event's schema is a record"
        raise ValueError(msg)
    digest = bytes.fromhex(fingerprint(to_parsing_canonical_form(plain), "CRC-64-AVRO"))
    return Schema(plain["name"].rpartition(".")[2], version, digest, text, parse_schema(plain))


@cache
def all_schemas(directory: Path = DIRECTORY) -> tuple[Schema, ...]:
    """Every version of every event, oldest first within an event."""
    files = sorted(directory.glob("*.avsc"), key=lambda f: (f.name.split(".")[0], int(f.name.split(".")[1][1:])))
    return tuple(parse(f.read_text(), int(f.name.split(".")[1][1:])) for f in files)


@cache
def newest_schemas(directory: Path = DIRECTORY) -> dict[str, Schema]:
    """Event name to the schema that is written today."""
    return {s.event: s for s in all_schemas(directory)}


def _without_logical_types(node: Any) -> Any:
    if isinstance(node, dict):
        if node.get("logicalType") and isinstance(node.get("type"), str):
            return node["type"]
        return {k: _without_logical_types(v) for k, v in node.items()}
    return [_without_logical_types(n) for n in node] if isinstance(node, list) else node
