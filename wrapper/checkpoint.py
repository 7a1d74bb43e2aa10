"""The fold of an alert's accepted records up to an offset, kept on `alert-checkpoints`, so that a start need not read
the whole chain.

Always made of what was read back, never of what was sent, and never while part of a split commit is held. A checkpoint
in parts counts only when all of them bear one id; anything less is no checkpoint, and the chain is read from its
beginning. Beside them stands what was put aside, so that it is not stumbled over anew at each start.
"""

from __future__ import annotations

import json
import time
import zlib
from functools import partial
from typing import Any

from topics.events import AlertCheckpointed, Record
from topics.fetch import Spot
from topics.ids import new_id
from topics.json_text import dumps
from wrapper.chain import Chain, Fold, Open

PART_BYTES = 512 * 1024
ASIDE = -1  # the part that holds the inputs put aside


def parts(chain: Chain, producer: str) -> list[tuple[str, AlertCheckpointed]]:
    """Key and event of each part."""
    if chain.held or chain.run is None:
        msg = "a checkpoint is made of whole commits of a run"
        raise ValueError(msg)
    chain.fold.forget()
    body = zlib.compress(dumps(_plain(chain)).encode(), 1)
    pieces = [body[i : i + PART_BYTES] for i in range(0, len(body), PART_BYTES)]
    id_, fold = new_id(), partial(_part, chain.alert, chain.shard, producer, upto=chain.upto, run=chain.run)
    return [fold(i, piece, id_, parts=len(pieces), number=chain.number) for i, piece in enumerate(pieces)]


def aside(
    alert: str, shard: int, producer: str, places: set[tuple[Spot, int]], program: str
) -> tuple[str, AlertCheckpointed]:
    """Key and event that say which inputs were put aside for good, as long as the `program` is this one."""
    plain = {"program": program, "places": sorted([s.topic, s.partition, offset] for s, offset in places)}
    return _part(alert, shard, producer, ASIDE, zlib.compress(dumps(plain).encode(), 1), new_id())


def _part(
    alert: str,
    shard: int,
    producer: str,
    part: int,
    body: bytes,
    checkpoint_id: str,
    *,
    parts: int = 0,
    upto: int = 0,
    run: int = 0,
    number: int = 0,
) -> tuple[str, AlertCheckpointed]:
    event = AlertCheckpointed(
        event_id=new_id(),
        producer=producer,
        occurred_at=time.time_ns() // 1000,
        alert=alert,
        shard=shard,
        checkpoint_id=checkpoint_id,
        part=part,
        parts=parts,
        upto=upto,
        run=run,
        number=number,
        body=body,
    )
    return f"{alert}/{shard}/{part}", event


class Checkpoints:
    """Takes the records of `alert-checkpoints` in and gives the newest whole checkpoint of one shard."""

    def __init__(self, alert: str, shard: int) -> None:
        self._alert, self._shard = alert, shard
        self._parts: dict[int, AlertCheckpointed] = {}

    def take(self, record: Record) -> None:
        """The next record, whoever it belongs to."""
        event = record.event
        if isinstance(event, AlertCheckpointed) and event.alert == self._alert and event.shard == self._shard:
            self._parts[event.part] = event

    def aside(self, program: str) -> set[tuple[Spot, int]]:
        """The inputs that were put aside for this program."""
        found = self._parts.get(ASIDE)
        plain = json.loads(zlib.decompress(found.body)) if found else {}
        places = plain["places"] if plain.get("program") == program else ()
        return {(Spot(topic, partition), offset) for topic, partition, offset in places}

    def chain(self, end: int) -> Chain:
        """The chain to read on from; a new one if no checkpoint is whole, or it is beyond the partition's `end`."""
        chain = Chain(self._alert, self._shard)
        first = self._parts.get(0)
        if first is None or first.upto > end:
            return chain
        wanted = [self._parts.get(i) for i in range(first.parts)]
        whole = [p for p in wanted if p is not None and p.checkpoint_id == first.checkpoint_id]
        if len(whole) < first.parts:
            return chain
        plain = json.loads(zlib.decompress(b"".join(p.body for p in whole)))
        chain.upto, chain.run, chain.number, chain.shards = first.upto, first.run, first.number, plain["shards"] or 1
        chain.fold = _fold(plain)
        return chain


def _plain(chain: Chain) -> dict[str, Any]:
    fold = chain.fold
    return {
        "shards": chain.shards,
        "open": {k: [o.notice_id, o.config_id, o.entity_type, o.entity_id, o.severity] for k, o in fold.open.items()},
        "events": fold.events,
        "positions": None if fold.positions is None else [[s.topic, s.partition, n] for s, n in fold.positions.items()],
        "now": fold.now,
        "state": fold.state,
    }


def _fold(plain: dict[str, Any]) -> Fold:
    positions = plain["positions"]
    return Fold(
        open={k: Open(*fields) for k, fields in plain["open"].items()},
        events=dict(plain["events"]),
        positions=None if positions is None else {Spot(topic, partition): n for topic, partition, n in positions},
        now=plain["now"],
        state=plain["state"],
    )
