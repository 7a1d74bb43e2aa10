"""The evidence of a small, calm run in a file: what the judge's own tests are made of.

`python -m tests.chaos record` makes it anew, where the policy or the rows have changed.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any

from tests.chaos.answers import World
from tests.chaos.evidence import Evidence, Said
from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.codec import decode
from topics.dead_letters import DeadLetter
from topics.events import Record
from topics.fetch import Broken, Item, Spot

RECORDED = Path(__file__).parent / "recorded.json.gz"
TEXTS = ("body", "forward")
SETS = ("direct", "alert", "over", "marks")


def save(found: Evidence, path: Path = RECORDED) -> None:
    """Write the evidence down."""
    told = {
        "log": [[*spot, [_written(i) for i in items if _judged(i)]] for spot, items in found.log.items()],
        "rows": {t: [{c: v for c, v in r.items() if c not in TEXTS} for r in rows] for t, rows in found.rows.items()},
        "said": {name: sorted(getattr(found.said, name)) for name in SETS},
        "world": dataclasses.asdict(found.world),
        "folded": sorted(found.folded),
        **{name: getattr(found, name) for name in ("taken", "sent_to", "sender_kills", "sender_freezes")},
    }
    text = json.dumps(told, default=lambda value: base64.b64encode(value).decode())
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load(path: Path = RECORDED) -> Evidence:
    """Read it again."""
    told: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    said = Said()
    for name in SETS:
        setattr(said, name, {tuple(v) if isinstance(v, list) else v for v in told["said"][name]})
    return Evidence(
        log={Spot(t, p): [_read(t, p, *i) for i in items] for t, p, items in told["log"]},
        rows=told["rows"],
        folded=set(told["folded"]),
        taken=told["taken"],
        sent_to=told["sent_to"],
        sender_kills=told["sender_kills"],
        sender_freezes=[(a, b) for a, b in told["sender_freezes"]],
        said=said,
        world=World(**told["world"]),
    )


def _judged(item: Item) -> bool:
    return item.topic in (NOTICES, NOTICE_REQUESTS, DELIVERIES) or not isinstance(item, Record) or _is_poison(item)


def _is_poison(item: Record) -> bool:
    return item.event is not None and item.event.producer == "stranger"


def _written(item: Item) -> list[Any]:
    match item:
        case Record():
            return ["record", item.offset, item.timestamp, item.key, item.raw if item.event else None]
        case Broken():
            return ["broken", item.offset, item.timestamp, item.reason, item.value]
    about = [item.source_topic, item.source_partition, item.source_offset, item.hash]
    return ["letter", item.offset, item.timestamp, item.reason, about]


def _read(topic: str, partition: int, kind: str, offset: int, timestamp: int, text: str, value: Any) -> Item:
    if kind == "letter":
        about, place, at, digest = value
        return DeadLetter(topic, partition, offset, timestamp, about, place, at, digest, text)
    raw = base64.b64decode(value or "")
    if kind == "broken":
        return Broken(topic, partition, offset, timestamp, None, raw, text)
    return Record(topic, partition, offset, timestamp, text, decode(raw) if value is not None else None, raw)
