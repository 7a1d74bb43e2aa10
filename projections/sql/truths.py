"""The rows of topics whose last record is the truth.

Alert configs, recipients, entities, reports, deliveries and their results, dead letters. Each fold only writes down
what the record says; there is nothing to decide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, delete, select

from projections.outgoing import Outgoing, Refused
from projections.sql.fold import Decider
from projections.sql.schema import (
    alert_configs,
    alert_reports,
    delivery_requests,
    delivery_results,
    entities,
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
    """Rows to write, by primary key; null deletes."""

    rows: dict[Any, Row | None] = field(default_factory=dict)
    results: dict[str, Row] = field(default_factory=dict)
    now: int = 0  # the log's time (ms), where what is over is forgotten


class TruthFold:
    """TopicFold of a topic where the last record of a key counts: `row_of` gives (key, row or null) for a record."""

    def __init__(self, table: Table, row_of: Callable[[Record], tuple[Any, Row | None]]) -> None:
        self._table, self._row_of = table, row_of

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """Nothing: the last record is the truth."""
        return State()

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """Remember the newest of each key."""
        key, row = self._row_of(record)
        state.rows[key] = row
        return []

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """Write the newest of each key."""
        upsert(tx, self._table, [r for r in state.rows.values() if r is not None])
        columns = list(self._table.primary_key.columns)
        for key in (k for k, r in state.rows.items() if r is None):
            values = key if isinstance(key, tuple) else (key,)
            tx.execute(delete(self._table).where(*(c == v for c, v in zip(columns, values, strict=True))))

    def answers(self, tx: Connection, spot: Spot, state: State, decider: Decider) -> list[tuple[int, Outgoing]]:
        """Nothing is asked here."""
        return []

    def asked(self, tx: Connection, spot: Spot) -> None:
        """Nothing is asked here."""


class DeliveriesFold(TruthFold):
    """TopicFold of `deliveries`: what is asked for and what came of it stand in two tables.

    Sent wins, then the first final result.
    """

    def __init__(self) -> None:
        super().__init__(delivery_requests, lambda record: (record.offset, None))

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """The results that these records add to."""
        ids = sorted({r.event.delivery_id for r in records if isinstance(r.event, RESULTS)})
        state = State()
        for i in range(0, len(ids), 500):
            query = select(delivery_results).where(delivery_results.c.delivery_id.in_(ids[i : i + 500]))
            state.results.update({r.delivery_id: dict(r._mapping) for r in tx.execute(query)})  # noqa: SLF001 - SQLAlchemy's public name
        return state

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """Note a request, or fold a result."""
        e = record.event
        if isinstance(e, DeliveryRequested):
            state.rows.setdefault(e.delivery_id, _request_row(record, e))
        elif isinstance(e, RESULTS):
            before = state.results.get(e.delivery_id)
            state.results[e.delivery_id] = after_result(before, record)
        else:
            msg = f"{type(e).__name__} has no place on deliveries"
            raise Refused(msg)
        return []

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """The first request of an id counts; results replace their row."""
        insert_new(tx, delivery_requests, [r for r in state.rows.values() if r])
        upsert(tx, delivery_results, list(state.results.values()))


RESULTS = (DeliveryCancelled, DeliverySent, DeliveryRetried, DeliveryFailed)


def after_result(before: Row | None, record: Record) -> Row:
    """The row of a delivery's results after one more."""
    e = record.event
    if not isinstance(e, RESULTS):
        raise TypeError(f"{type(e).__name__} is no result of a delivery")
    row: Row = (
        dict(before)
        if before
        else {"attempts": 0, "next_at": 0, "outcome": "waiting", "reason": "", "at": record.timestamp}
    )
    match e:
        case DeliverySent():
            row |= {
                "attempts": max(row["attempts"], e.attempt),
                "outcome": "sent",
                "reason": _answer(e.body),
                "at": record.timestamp,
            }
        case DeliveryRetried() if row["outcome"] == "waiting" and e.attempt > row["attempts"]:
            row |= {"attempts": e.attempt, "next_at": e.next_at, "reason": _answer(e.body), "at": record.timestamp}
        case DeliveryFailed() if row["outcome"] == "waiting":
            row |= {
                "attempts": max(row["attempts"], e.attempt),
                "outcome": "failed",
                "reason": e.reason,
                "at": record.timestamp,
            }
        case DeliveryCancelled() if row["outcome"] == "waiting":
            row |= {"outcome": "cancelled", "reason": e.reason, "at": record.timestamp}
    return row | {"delivery_id": e.delivery_id}


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


def _request_row(record: Record, e: DeliveryRequested) -> Row:
    return {
        "delivery_id": e.delivery_id,
        "user_id": e.user,
        "notice_id": e.notice_id,
        "partition": record.partition,
        "offset": record.offset,
        "step": e.step,
        "channel": e.channel,
        "message_id": e.message_id,
        "deadline_at": e.deadline_at,
        "requested_at": record.timestamp,
        "body": json_text(e.body),
    }


def config_row(record: Record) -> tuple[str, Row | None]:
    """A config as it stands; a deleted one keeps its version."""
    e = record.event
    common = {"proposed_at_offset": e.caused_by[0].offset if e and e.caused_by else -1, "at": record.timestamp}
    match e:
        case AlertConfigured():
            row = {
                "config_id": e.config_id,
                "version": e.version,
                "name": e.name,
                "enabled": e.enabled,
                "body": json_text(e.body),
            }
            return e.config_id, row | common | {"deleted": False}
        case AlertConfigDeleted():
            row = {"config_id": e.config_id, "version": e.version, "name": e.name, "enabled": False, "body": "{}"}
            return e.config_id, row | common | {"deleted": True}
        case None:
            return record.key, None
    msg = f"{type(e).__name__} has no place on alert-configs"
    raise Refused(msg)


def recipient_row(record: Record) -> tuple[str, Row | None]:
    """A recipient as it stands; a deleted one keeps its version."""
    e = record.event
    common = {"proposed_at_offset": e.caused_by[0].offset if e and e.caused_by else -1, "at": record.timestamp}
    match e:
        case RecipientChanged():
            row = {"recipient_id": e.recipient_id, "version": e.version, "body": json_text(e.body), "deleted": False}
            return e.recipient_id, row | common
        case RecipientDeleted():
            return e.recipient_id, {
                "recipient_id": e.recipient_id,
                "version": e.version,
                "body": "{}",
                "deleted": True,
            } | common
        case None:
            return record.key, None
    msg = f"{type(e).__name__} has no place on recipients"
    raise Refused(msg)


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
        msg = f"{type(e).__name__} has no place on alert-reports"
        raise Refused(msg)
    config = e.config_id or ""
    text = e.body.decode(errors="replace").replace("\0", "\ufffd")[:4000]
    row = {
        "alert": e.alert,
        "shard": e.shard,
        "config_id": config,
        "kind": e.kind,
        "text": text,
        "at": record.timestamp,
    }
    return (e.alert, e.shard, config), row


class ControlsFold(TruthFold):
    """TopicFold of `controls`: silences and revoked tokens. Tokens that have expired need not be revoked any longer."""

    def __init__(self) -> None:
        super().__init__(silences, silence_row)

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """Remember the newest of each key, and what time it is on the log."""
        e = record.event
        if not isinstance(e, TokenRevoked):
            state.results.pop(record.key, None)
            return super().apply(state, record)
        state.results[record.key] = {
            "revocation": record.key,
            "token_id": e.token_id,
            "user_id": e.user,
            "issued_until": e.issued_until,
            "until": e.until,
        }
        state.now = record.timestamp
        return []

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """Write the newest of each key; the topic has one partition, so what has expired is nobody else's."""
        super().save(tx, spot, state)
        gone = [k for k, r in state.rows.items() if r is None and k not in state.results]
        tx.execute(delete(revocations).where(revocations.c.revocation.in_(gone)))
        upsert(tx, revocations, list(state.results.values()))
        if state.now:
            tx.execute(delete(revocations).where(revocations.c.until < state.now))


def silence_row(record: Record) -> tuple[str, Row | None]:
    """A silence as it stands; an ended one says nothing more."""
    e = record.event
    match e:
        case SilenceSet() if e.silence_id == record.key:
            return e.silence_id, {
                "silence_id": e.silence_id,
                "by": e.by,
                "alert": e.alert,
                "entity_type": e.entity_type,
                "entity_id": e.entity_id,
                "user_id": e.user,
                "until": e.until,
                "body": json_text(e.body or b"{}"),
                "at": record.timestamp,
            }
        case SilenceEnded() if e.silence_id == record.key:
            return e.silence_id, None
        case None:
            return record.key, None
    msg = f"{type(e).__name__} has no place on controls under this key"
    raise Refused(msg)


def json_text(body: bytes) -> str:
    """A body as JSON text. Refused if it is none."""
    try:
        return checked(body)
    except ValueError as error:
        msg = "the body is no JSON text"
        raise Refused(msg) from error


def alert_configs_fold() -> TruthFold:
    """TopicFold of `alert-configs`."""
    return TruthFold(alert_configs, config_row)


def recipients_fold() -> TruthFold:
    """TopicFold of `recipients`."""
    return TruthFold(recipients, recipient_row)


def entities_fold() -> TruthFold:
    """TopicFold of an entity topic."""
    return TruthFold(entities, entity_row)


def reports_fold() -> TruthFold:
    """TopicFold of `alert-reports`."""
    return TruthFold(alert_reports, report_row)
