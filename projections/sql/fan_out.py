"""The rows behind the fold of `notice-requests`: the chains of the alerts and the audiences of what is open."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, select, tuple_

from projections.fan_out import Audience, Desk, Run, apply, conditions_of
from projections.outgoing import Outgoing
from projections.sql.fold import TopicFold
from projections.sql.schema import conditions, runs
from projections.sql.store import upsert
from topics.codec import decode, encode
from topics.events import AlertCommitted, AlertMoved, AlertStarted, Record
from topics.fetch import Spot
from topics.json_text import dumps

SLICE = 400


@dataclass(slots=True)
class State:
    """The desk with what was there when it was loaded."""

    desk: Desk
    runs_before: dict[tuple[str, int], Run] = field(default_factory=dict)
    conditions_before: dict[tuple[str, str], Audience] = field(default_factory=dict)


class FanOutFold(TopicFold):
    """TopicFold of `notice-requests`. It asks nothing: what a request means was decided where it was accepted."""

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """Runs of the alerts in these records, and their conditions (those of held parts too)."""
        alerts = {r.event.alert for r in records if isinstance(r.event, AlertStarted | AlertCommitted | AlertMoved)}
        desk = Desk()
        if alerts:
            for row in tx.execute(select(runs).where(runs.c.alert.in_(sorted(alerts)))):
                desk.runs[row.alert, row.shard] = Run(row.run, row.number, row.shards, _held(bytes(row.held)))
        keys = {k for r in records for k in conditions_of(r)}
        keys |= {(f"alert:{a}", e.key) for (a, _), run in desk.runs.items() for part in run.held for e in part.effects}
        ordered = sorted(keys)
        for i in range(0, len(ordered), SLICE):
            query = select(conditions).where(tuple_(conditions.c.source, conditions.c.key).in_(ordered[i : i + SLICE]))
            for row in tx.execute(query):
                desk.conditions[row.source, row.key] = tuple((u, n) for u, n in json.loads(row.audience))
        return State(desk, dict(desk.runs), dict(desk.conditions))

    def apply(self, state: State, record: Record) -> Sequence[Outgoing]:
        """See projections.fan_out."""
        return apply(state.desk, record)

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """Write the runs and conditions that changed."""
        changed = [(k, r) for k, r in state.desk.runs.items() if state.runs_before.get(k) != r]
        upsert(
            tx,
            runs,
            [
                {"alert": a, "shard": s, "run": r.run, "number": r.number, "shards": r.shards, "held": _pack(r.held)}
                for (a, s), r in changed
            ],
        )
        gone = sorted(k for k in state.conditions_before if k not in state.desk.conditions)
        for i in range(0, len(gone), SLICE):
            tx.execute(delete(conditions).where(tuple_(conditions.c.source, conditions.c.key).in_(gone[i : i + SLICE])))
        new = [(k, v) for k, v in state.desk.conditions.items() if state.conditions_before.get(k) != v]
        upsert(tx, conditions, [{"source": s, "key": k, "audience": dumps(list(v))} for (s, k), v in new])


def _pack(held: tuple[AlertCommitted, ...]) -> bytes:
    return b"".join(len(data).to_bytes(4, "big") + data for data in map(encode, held))


def _held(packed: bytes) -> tuple[AlertCommitted, ...]:
    parts, at = [], 0
    while at < len(packed):
        size = int.from_bytes(packed[at : at + 4], "big")
        event = decode(packed[at + 4 : at + 4 + size])
        if not isinstance(event, AlertCommitted):
            raise TypeError(f"{type(event).__name__} can't be a part of a commit")
        parts.append(event)
        at += 4 + size
    return tuple(parts)
