"""The events of Tidings as frozen dataclasses, one for each schema in `schemas/avro/` (a contract test compares them).

Past tense, complete, and safe to keep for ever. Times named `*_at` are milliseconds since 1970 UTC, the log's own unit;
`occurred_at` is microseconds by the producer's clock, shown and never compared. What may identify a person stands in
`body` (UTF-8 JSON text while `body_key` is null, otherwise encrypted under that key). Lists of things are tuples, so
that an event can never change.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Cause:
    """Where a causing record stands: Kafka finds nothing by id."""

    event_id: str
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Lane:
    """One way to one receiver: `kind` is `recipient` (value: recipient id) or `address` (value: raw address).

    `step` names the waiting step of a notice that forwards here `after_ms` after it was raised; the channel `inbox` has
    none.
    """

    step: str
    channel: str
    kind: str
    value: str
    after_ms: int


@dataclass(frozen=True, slots=True)
class Next:
    """The offset that will be read next from one partition."""

    topic: str
    partition: int
    next: int


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing an alert said in a commit: `op` is raise, update, resolve or event.

    `body` is JSON text with the members `notice` (title, text, link, data, metric), `config` and `entity`: what the
    program saw, by value.
    """

    op: str
    key: str
    notice_id: str
    now: int
    config_id: str
    entity_type: str | None
    entity_id: str | None
    severity: str
    lanes: tuple[Lane, ...]
    forward: str
    caused_by: tuple[Cause, ...]
    body_key: str | None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have. `event_id` names the record and is what readers deduplicate by."""

    event_id: str
    producer: str
    occurred_at: int
    caused_by: tuple[Cause, ...] = ()


# ------------------------------------------------------------------ the log itself
@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOpened(Event):
    """The first record of a partition; the ids of all of them are the log's epoch."""

    topic: str
    partition: int
    partitions: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaPublished(Event):
    """A writer schema, so that the log explains itself for ever.

    Key: `fingerprint` (hex, as it stands in the records).
    """

    fingerprint: str
    schema: str


# ------------------------------------------------------------------ entities.<type>
@dataclass(frozen=True, slots=True, kw_only=True)
class EntityChanged(Event):
    """`op` is created, updated or deleted; `body` the whole entity. Without `version` it is the record's offset."""

    entity_type: str
    entity_id: str
    op: str
    version: int | None = None
    at: int | None = None
    body_key: str | None = None
    body: bytes | None = None


# ------------------------------------------------------------------ commands, alert-configs, recipients
@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProposed(Event):
    """`op` is create, replace or delete; `based_on` the version that must stand at its turn on the log (null: any)."""

    config_id: str
    op: str
    based_on: int | None
    name: str
    enabled: bool
    lanes: tuple[Lane, ...]
    forward: str
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientProposed(Event):
    """As ConfigProposed, for a recipient."""

    recipient_id: str
    op: str
    based_on: int | None
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRefused(Event):
    """A proposal that did not hold at its turn. `kind` config or recipient; `reason` version, exists or missing."""

    kind: str
    subject_id: str
    proposal_id: str
    reason: str
    version: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertConfigured(Event):
    """The truth about one alert config; `caused_by` names the proposal that it accepts."""

    config_id: str
    version: int
    name: str
    enabled: bool
    lanes: tuple[Lane, ...]
    forward: str
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertConfigDeleted(Event):
    """The config is gone; `version` goes on if it is made anew."""

    config_id: str
    version: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientChanged(Event):
    """The truth about one recipient."""

    recipient_id: str
    version: int
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipientDeleted(Event):
    """The recipient is gone."""

    recipient_id: str
    version: int


# ------------------------------------------------------------------ notice-requests
@dataclass(frozen=True, slots=True, kw_only=True)
class AlertStarted(Event):
    """Opens a run of one shard of an alert; the run's name is the offset of this record."""

    alert: str
    shard: int
    shards: int
    instance: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMoved(Event):
    """From here on the alert has `shards` shards; ends all its runs."""

    alert: str
    shards: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCommitted(Event):
    """One commit of a run: what was said, up to where the inputs were read, and the program's state if it changed.

    Accepted only if `run` is the newest AlertStarted of (alert, shard) before it and `number` is the next. `state` is
    zlib-compressed JSON text, empty for null.
    """

    alert: str
    shard: int
    run: int
    number: int
    more: bool
    effects: tuple[Effect, ...]
    positions: tuple[Next, ...]
    now: int
    state_changed: bool
    state: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeRequested(Event):
    """A direct notice of `subject` (who sent it). `key` opens a condition; `request_key` is the idempotency key."""

    subject: str
    key: str | None
    request_key: str
    users: tuple[str, ...]
    lanes: tuple[Lane, ...]
    forward: str
    severity: str
    entity_type: str | None
    entity_id: str | None
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeResolved(Event):
    """The direct condition `key` of `subject` is over."""

    subject: str
    key: str


# ------------------------------------------------------------------ notices
@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeRaised(Event):
    """A notice for one user (or `channel:address`, then `inbox` is false) with its whole forward plan in `lanes`.

    `kind` is condition, event or direct. `body` is JSON text: title, text, link, data, metric.
    """

    notice_id: str
    user: str
    inbox: bool
    kind: str
    alert: str | None
    config_id: str | None
    key: str | None
    entity_type: str | None
    entity_id: str | None
    severity: str
    lanes: tuple[Lane, ...]
    forward: str
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeUpdated(Event):
    """Other text under the same id. The larger (`cause_offset`, `cause_index`) wins; `push` where the severity rose."""

    notice_id: str
    user: str
    cause_offset: int
    cause_index: int
    severity: str
    push: bool
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeEnded(Event):
    """The condition is over; what waits is not sent. `body` is JSON text of the resolve's `data`, empty for none."""

    notice_id: str
    user: str
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NoticeMarked(Event):
    """`mark` is seen, read, unread, archived, unarchived or snoozed; `ids`, or all raised before the offset `up_to`."""

    user: str
    cmd: str
    mark: str
    ids: tuple[str, ...]
    up_to: int | None
    until: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencesChanged(Event):
    """The user's own preferences; `body` is their JSON text."""

    user: str
    cmd: str
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Due(Event):
    """Time as an event: what waits under this `number` is due: forward, repeat, resolved, digest, snooze."""

    user: str
    notice_id: str
    what: str
    step: str
    number: int
    due_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Event):
    """The answer to a Due: deliver, skip (`reason`) or postpone (`until`, `reason`).

    The first on the log is the decision. `body` is JSON text of all that it looked at, the address among it.
    """

    user: str
    notice_id: str
    what: str
    step: str
    number: int
    answer: str
    reason: str
    until: int | None
    body_key: str | None = None
    body: bytes


# ------------------------------------------------------------------ deliveries
@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRequested(Event):
    """Complete: nothing else is needed to send it.

    `body`: address, title, text, severity, link, alert, … as JSON text.
    """

    delivery_id: str
    user: str
    notice_id: str
    step: str
    channel: str
    message_id: str
    deadline_at: int
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryCancelled(Event):
    """Not to be sent any more; a DeliverySent that came first wins."""

    delivery_id: str
    user: str
    notice_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySent(Event):
    """The channel's server took it. `body`: the server's answer."""

    delivery_id: str
    user: str
    notice_id: str
    attempt: int
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRetried(Event):
    """An attempt failed for now; the next is not before `next_at`. `body`: the server's answer."""

    delivery_id: str
    user: str
    notice_id: str
    attempt: int
    next_at: int
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFailed(Event):
    """Given up: `reason` is rejected, too_late, no_channel. `body`: the server's answer."""

    delivery_id: str
    user: str
    notice_id: str
    attempt: int
    reason: str
    body_key: str | None = None
    body: bytes


# ------------------------------------------------------------------ alert-checkpoints, alert-reports, controls
@dataclass(frozen=True, slots=True, kw_only=True)
class AlertCheckpointed(Event):
    """One part of the fold of the accepted records of a shard up to the offset `upto` (the next to read).

    Parts have keys of their own and one `checkpoint_id`; mixed or partial ones count as none. `body` is the fold's
    part.
    """

    alert: str
    shard: int
    checkpoint_id: str
    part: int
    parts: int
    upto: int
    run: int
    number: int
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertReported(Event):
    """What people should know of an alert.

    `kind` is error (about a config), rejected, started, restarted, failed, stopped.
    """

    alert: str
    shard: int
    kind: str
    config_id: str | None
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceSet(Event):
    """Forwards that match all given fields are skipped until `until`."""

    silence_id: str
    by: str
    alert: str | None
    entity_type: str | None
    entity_id: str | None
    user: str | None
    until: int
    body_key: str | None = None
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceEnded(Event):
    """The silence is over before its time."""

    silence_id: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRevoked(Event):
    """Tokens with this id (`jti`) are refused; with an empty one all tokens of `user` issued until `issued_until`.

    `until`: when the last of them has expired. Times in ms.
    """

    token_id: str
    until: int
    user: str | None = None
    issued_until: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """An event where it stands on the log.

    `topic` is the catalogue's name; `event` is null for a tombstone; `raw` its bytes.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: str
    event: Event | None
    raw: bytes = field(default=b"", compare=False, repr=False)

    @property
    def cause(self) -> Cause:
        """This record as the cause of another."""
        return Cause(self.event.event_id if self.event else "", self.topic, self.partition, self.offset)
