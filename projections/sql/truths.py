"""The rows of topics whose last record is the truth.

Alert configs, recipients, entities, reports, deliveries and their results, dead letters. Each fold only writes down
what the record says; there is nothing to decide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from projections.outgoing import Outgoing, Refused, out_of_place
from projections.sql.fold import TopicFold
from projections.sql.schema import (
    alert_configs,
    alert_reports,
    delivery_requests,
    delivery_results,
    recipients,
    revocations,
    silences,
)
from projections.sql.store import insert_new, upsert
from topics.events import (
    AlertConfigDeleted,
    AlertConfigured,
    AlertReported,
    DeliveryCancelled,
    DeliveryFailed,
    DeliveryRequested,
    DeliveryRetried,
    DeliverySent,
    EntityChanged,
    Event,
    RecipientChanged,
    RecipientDeleted,
    Record,
    SilenceEnded,
    SilenceSet,
    TokenRevoked,
)
from topics.fetch import Spot
from topics.json_text import checked, read

Row = dict[str, Any]


@dataclass(slots=True)
class State:
    """Rows to write, by table and key; null deletes."""

    rows: defaultdict[Table, dict[Any, Row | None]] = field(default_factory=lambda: defaultdict(dict))
    now: int = 0  # the log's time (ms), where what is over is forgotten


class TruthFold(TopicFold):
    """TopicFold of a topic where the last record of a key counts: `row_of` gives (key, row or null) for a record."""

    def __init__(self, table: Table, row_of: Callable[[Record], tuple[Any, Row | None]]) -> None:
        self._table, self._row_of = table, row_of

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """Nothing: the last record is the truth."""
        return State()

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """Remember the newest of each key."""
        key, row = self._row_of(record)
        state.rows[self._table][key] = row
        return []

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """Write the newest of each key."""
        for table, rows in state.rows.items():
            upsert(tx, table, [r for r in rows.values() if r is not None])
            for key in (k for k, r in rows.items() if r is None):
                values = key if isinstance(key, tuple) else (key,)
                tx.execute(delete(table).where(*(c == v for c, v in zip(table.primary_key, values, strict=True))))


class ControlsFold(TruthFold):
    """TopicFold of `controls`: silences and revoked tokens. Tokens that have expired need not be revoked any longer."""

    def __init__(self) -> None:
        super().__init__(silences, silence_row)

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """Remember the newest of each key, and what time it is on the log."""
        e = record.event
        if isinstance(e, TokenRevoked):
            state.rows[revocations][record.key] = _row(revocations, e, revocation=record.key, user_id=e.user)
            state.now = record.timestamp
        else:
            super().apply(state, record)
            if not isinstance(e, SilenceSet):
                state.rows[revocations][record.key] = None
        return []

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """Write the newest of each key; the topic has one partition, so what has expired is nobody else's."""
        super().save(tx, spot, state)
        if state.now:
            tx.execute(delete(revocations).where(revocations.c.until < state.now))


@dataclass(slots=True)
class Deliveries:
    """Rows to write, by delivery id."""

    requests: dict[str, Row] = field(default_factory=dict)
    results: dict[str, Row] = field(default_factory=dict)


class DeliveriesFold(TopicFold):
    """TopicFold of `deliveries`: what is asked for and what came of it stand in two tables.

    Sent wins, then the first final result.
    """

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> Deliveries:
        """The results that these records add to."""
        ids = sorted({r.event.delivery_id for r in records if isinstance(r.event, RESULTS)})
        state = Deliveries()
        for i in range(0, len(ids), 500):
            query = select(delivery_results).where(delivery_results.c.delivery_id.in_(ids[i : i + 500]))
            state.results.update({r.delivery_id: dict(r._mapping) for r in tx.execute(query)})  # noqa: SLF001 - SQLAlchemy's public name
        return state

    def apply(self, state: Deliveries, record: Record) -> list[Outgoing]:
        """Note a request, or fold a result."""
        e = record.event
        if isinstance(e, DeliveryRequested):
            state.requests.setdefault(e.delivery_id, _request_row(record, e))
        elif isinstance(e, RESULTS):
            state.results[e.delivery_id] = after_result(state.results.get(e.delivery_id), record)
        else:
            raise out_of_place(record)
        return []

    def save(self, tx: Connection, spot: Spot, state: Deliveries) -> None:
        """The first request of an id counts; results replace their row."""
        insert_new(tx, delivery_requests, list(state.requests.values()))
        upsert(tx, delivery_results, list(state.results.values()))


RESULTS = (DeliveryCancelled, DeliverySent, DeliveryRetried, DeliveryFailed)


def after_result(before: Row | None, record: Record) -> Row:
    """The row of a delivery's results after one more."""
    e = record.event
    if not isinstance(e, RESULTS):
        raise TypeError(f"{type(e).__name__} is no result of a delivery")
    new = {"attempts": 0, "next_at": 0, "outcome": "waiting", "reason": "", "at": record.timestamp}
    row: Row = dict(before or new)
    waits, attempts = row["outcome"] == "waiting", row["attempts"]
    match e:
        case DeliverySent():
            row |= {"attempts": max(attempts, e.attempt), "outcome": "sent", "reason": _answer(e.body)}
        case DeliveryRetried() if waits and e.attempt > attempts:
            row |= {"attempts": e.attempt, "next_at": e.next_at, "reason": _answer(e.body)}
        case DeliveryFailed() if waits:
            row |= {"attempts": max(attempts, e.attempt), "outcome": "failed", "reason": e.reason}
        case DeliveryCancelled() if waits:
            row |= {"outcome": "cancelled", "reason": e.reason}
        case _:
            return row | {"delivery_id": e.delivery_id}
    return row | {"delivery_id": e.delivery_id, "at": record.timestamp}


def _answer(body: bytes) -> str:
    """What the channel's server said, as people read it."""
    text = body.decode(errors="replace")
    try:
        said = read(text)
    except ValueError:
        said = text
    found = said.get("answer") if isinstance(said, dict) else said
    return (
        (found if isinstance(found, str) else text).encode("utf-8", "replace").decode().replace("\0", "\ufffd")[:1000]
    )


def _row(table: Table, event: Event, **own: Any) -> Row:
    """`own` columns, and for the others what the event says by their names."""
    return {c.name: own[c.name] if c.name in own else getattr(event, c.name) for c in table.columns}


def _request_row(record: Record, e: DeliveryRequested) -> Row:
    return _row(
        delivery_requests,
        e,
        user_id=e.user,
        partition=record.partition,
        offset=record.offset,
        requested_at=record.timestamp,
        body=json_text(e.body),
    )


def config_row(record: Record) -> tuple[str, Row | None]:
    """A config as it stands; a deleted one keeps its version."""
    match record.event:
        case AlertConfigured() as e:
            return e.config_id, _thing_row(alert_configs, record, e, json_text(e.body), enabled=e.enabled)
        case AlertConfigDeleted() as e:
            return e.config_id, _thing_row(alert_configs, record, e, None, enabled=False)
        case None:
            return record.key, None
    raise out_of_place(record)


def recipient_row(record: Record) -> tuple[str, Row | None]:
    """A recipient as it stands; a deleted one keeps its version."""
    match record.event:
        case RecipientChanged() as e:
            return e.recipient_id, _thing_row(recipients, record, e, json_text(e.body))
        case RecipientDeleted() as e:
            return e.recipient_id, _thing_row(recipients, record, e, None)
        case None:
            return record.key, None
    raise out_of_place(record)


def _thing_row(table: Table, record: Record, e: Event, body: str | None, **own: Any) -> Row:
    proposed_at = e.caused_by[0].offset if e.caused_by else -1
    common = {"deleted": body is None, "proposed_at_offset": proposed_at, "at": record.timestamp}
    return _row(table, e, body=body or "{}", **common, **own)


def entity_row(record: Record) -> tuple[tuple[str, str], Row | None]:
    """An entity as it stands; none if it was deleted."""
    e = record.event
    if e is None:
        return (record.topic.removeprefix("entities."), record.key), None
    if not isinstance(e, EntityChanged) or e.entity_id != record.key or record.topic != f"entities.{e.entity_type}":
        msg = f"{type(e).__name__} of {getattr(e, 'entity_type', '?')} has no place on {record.topic} under this key"
        raise Refused(msg)
    if e.op == "deleted":
        return (e.entity_type, e.entity_id), None
    return (e.entity_type, e.entity_id), {
        "entity_type": e.entity_type,
        "entity_id": e.entity_id,
        "partition": record.partition,
        "offset": record.offset,
        "version": record.offset if e.version is None else e.version,
        "at": record.timestamp if e.at is None else e.at,
        "op": e.op,
        "body": json_text(e.body or b"{}"),
    }


def report_row(record: Record) -> tuple[tuple[str, int, str], Row | None]:
    """The newest word about an alert or one of its configs."""
    e = record.event
    if not isinstance(e, AlertReported):
        raise out_of_place(record)
    config = e.config_id or ""
    text = e.body.decode(errors="replace").replace("\0", "\ufffd")[:4000]
    row = _row(alert_reports, e, config_id=config, text=text, at=record.timestamp)
    return (e.alert, e.shard, config), row


def silence_row(record: Record) -> tuple[str, Row | None]:
    """A silence as it stands; an ended one says nothing more."""
    e = record.event
    match e:
        case SilenceSet() if e.silence_id == record.key:
            body = json_text(e.body or b"{}")
            return e.silence_id, _row(silences, e, user_id=e.user, body=body, at=record.timestamp)
        case SilenceEnded() if e.silence_id == record.key:
            return e.silence_id, None
        case None:
            return record.key, None
    raise Refused(f"{type(e).__name__} has no place on controls under this key")


def json_text(body: bytes) -> str:
    """A body as JSON text. Refused if it is none."""
    try:
        return checked(body)
    except ValueError as error:
        raise Refused("the body is no JSON text") from error
