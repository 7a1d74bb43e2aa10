"""The tables of the read models.

A row is written by the events of one topic only; what two topics say of one thing stands in two tables. There
are no migrations: another STAMP (raised with every change of a table or a fold) means that the rows are rebuilt from
the log. Times are milliseconds of the log; texts that came as JSON stay text. In SQLite a table of short rows is the
tree of its key (`sqlite_with_rowid`), so that each row is written once.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    text,
)

STAMP = 4

metadata = MetaData()


def _partial(name: str, where: ColumnElement[bool], *columns: Column[Any]) -> None:
    """An index of those rows of a table for which `where` holds."""
    Index(name, *columns, sqlite_where=where, postgresql_where=where)


meta = Table(
    "tidings_meta",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("stamp", Integer, nullable=False),
    Column("generation", String, nullable=False),
)

# ------------------------------------------------------ where the log was read to (rules 1 and 7), what leaves (rule 3)
positions = Table(
    "positions",
    metadata,
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("next", BigInteger, nullable=False),
    Column("done", BigInteger, nullable=False),  # effects of the record at `next` that are in the outbox already
    Column("half_id", String, nullable=False),  # that record's event id; empty when done is 0
    Column("epoch", String, nullable=False),
    PrimaryKeyConstraint("topic", "partition"),
    sqlite_with_rowid=False,
)

trail = Table(
    "trail",
    metadata,
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("event_id", String, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("topic", "partition", "offset"),
    sqlite_with_rowid=False,
)

outbox = Table(
    "outbox",
    metadata,
    Column("lane_topic", String, nullable=False),
    Column("lane_partition", Integer, nullable=False),
    Column("source_offset", BigInteger, nullable=False),
    Column("position", Integer, nullable=False),
    Column("event_id", String, nullable=False, unique=True),
    Column("topic", String, nullable=False),
    Column("key", Text),
    Column("value", LargeBinary, nullable=False),
    Column("headers", Text),
    PrimaryKeyConstraint("lane_topic", "lane_partition", "source_offset", "position"),
    sqlite_with_rowid=False,
)

dead_letters = Table(
    "dead_letters",
    metadata,
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("hash", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("topic", "partition", "offset", "hash"),
)

crashes = Table(
    "crashes",
    metadata,
    Column("topic", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("count", Integer, nullable=False),
    PrimaryKeyConstraint("topic", "partition", "offset"),
)

# ------------------------------------------------------------------ commands: what was decided, in log order
heads = Table(
    "heads",
    metadata,
    Column("kind", String, nullable=False),
    Column("subject_id", String, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    PrimaryKeyConstraint("kind", "subject_id"),
)

proposals = Table(
    "proposals",
    metadata,
    Column("proposal_id", String, primary_key=True),
    Column("kind", String, nullable=False),
    Column("subject_id", String, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("outcome", String, nullable=False),  # asked | accepted | version | exists | missing
    Column("version", BigInteger),
    Column("at", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),  # the proposal, while it is asked
)
_partial("proposals_asked", proposals.c.outcome == "asked", proposals.c.offset)

# ------------------------------------------------------------------ alert-configs, recipients, alert-reports, entities
alert_configs = Table(
    "alert_configs",
    metadata,
    Column("config_id", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("name", String, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Column("proposed_at_offset", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("alert_configs_by_name", "name", "config_id"),
)

recipients = Table(
    "recipients",
    metadata,
    Column("recipient_id", String, primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),
    Column("body", Text, nullable=False),
    Column("proposed_at_offset", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
)

THINGS = {"config": alert_configs.c.config_id, "recipient": recipients.c.recipient_id}  # that proposals want changed

alert_reports = Table(
    "alert_reports",
    metadata,
    Column("alert", String, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("config_id", String, nullable=False),  # empty: about the program
    Column("kind", String, nullable=False),
    Column("text", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("alert", "shard", "config_id"),
)

entities = Table(
    "entities",
    metadata,
    Column("entity_type", String, nullable=False),
    Column("entity_id", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("op", String, nullable=False),
    Column("body", Text, nullable=False),
    PrimaryKeyConstraint("entity_type", "entity_id"),
)

# ------------------------------------------------------------------ controls
silences = Table(
    "silences",
    metadata,
    Column("silence_id", String, primary_key=True),
    Column("by", String, nullable=False),
    Column("alert", String),
    Column("entity_type", String),
    Column("entity_id", String),
    Column("user_id", String),
    Column("until", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("silences_by_end", "until"),
)

revocations = Table(
    "revocations",
    metadata,
    Column("revocation", String, primary_key=True),  # the record's key
    Column("token_id", String, nullable=False),  # empty: all tokens of the user that were issued until then
    Column("user_id", String),
    Column("issued_until", BigInteger, nullable=False),
    Column("until", BigInteger, nullable=False),
    Index("revocations_by_end", "until"),
)

# ------------------------------------------------------ notice-requests: chains, and the audience of what is open
runs = Table(
    "runs",
    metadata,
    Column("alert", String, nullable=False),
    Column("shard", Integer, nullable=False),
    Column("run", BigInteger, nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("shards", Integer, nullable=False),
    Column("held", LargeBinary, nullable=False),  # the parts of a split commit that wait for the last one
    PrimaryKeyConstraint("alert", "shard"),
)

conditions = Table(
    "conditions",
    metadata,
    Column("source", String, nullable=False),  # alert:<name> or direct:<subject>
    Column("key", String, nullable=False),
    Column("audience", Text, nullable=False),  # JSON: [[user, notice_id], …]
    PrimaryKeyConstraint("source", "key"),
)

# ------------------------------------------------------------------ notices
notices = Table(
    "notices",
    metadata,
    Column("user_id", String, nullable=False),
    Column("notice_id", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("raised_offset", BigInteger, nullable=False),
    Column("raised_at", BigInteger, nullable=False),
    Column("changed_offset", BigInteger, nullable=False),
    Column("inbox", Boolean, nullable=False),
    Column("kind", String, nullable=False),
    Column("alert", String),
    Column("config_id", String),
    Column("key", Text),
    Column("entity_type", String),
    Column("entity_id", String),
    Column("severity", String, nullable=False),
    Column("forward", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("version_offset", BigInteger, nullable=False),
    Column("version_index", Integer, nullable=False),
    Column("seen_at", BigInteger),
    Column("read_at", BigInteger),
    Column("archived_at", BigInteger),
    Column("snoozed_until", BigInteger),
    Column("hold", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("stopped", Boolean, nullable=False),
    PrimaryKeyConstraint("user_id", "notice_id"),
)
# Where a notice lies in its user's inbox: unread, read, snoozed, archived, or (raw addresses, digests) nowhere. Queries
# have to say it in these words, or the database does not see that the index is meant.
PLACE = (
    "(CASE WHEN NOT inbox THEN 4 WHEN archived_at IS NOT NULL THEN 3 WHEN snoozed_until IS NOT NULL THEN 2"
    " WHEN read_at IS NOT NULL THEN 1 ELSE 0 END)"
)
Index("notices_by_place", notices.c.user_id, text(PLACE), notices.c.raised_offset, notices.c.notice_id)

steps = Table(
    "steps",
    metadata,
    Column("user_id", String, nullable=False),
    Column("notice_id", String, nullable=False),
    Column("what", String, nullable=False),  # forward | repeat | resolved | digest | snooze
    Column("step", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("channel", String, nullable=False),
    Column("kind", String, nullable=False),
    Column("value", Text, nullable=False),
    Column("number", Integer, nullable=False),
    Column("due_at", BigInteger, nullable=False),
    Column("state", String, nullable=False),  # waiting | asked | collected | gathered | delivered | skipped | returned
    Column("reason", String, nullable=False),
    Column("asked_offset", BigInteger),
    Column("asked_at", BigInteger),
    Column("asked_preferences", Text),
    Column("scope", String, nullable=False),  # whose throttle counts it: the config's id, or empty
    Column("told", Integer),  # the number under which it was last delivered
    Column("told_at", BigInteger),  # when that was due; null for what went in a digest
    Column("held_in", String, nullable=False),  # the digest that holds or carried it
    Column("earlier", Text, nullable=False, server_default=""),  # JSON: what was told before
    PrimaryKeyConstraint("user_id", "notice_id", "what", "step"),
    sqlite_with_rowid=False,
)
_partial("steps_told", steps.c.told_at.is_not(None), steps.c.user_id, steps.c.scope, steps.c.told_at)
_partial("steps_held", steps.c.state.in_(("collected", "gathered")), steps.c.user_id, steps.c.held_in)
_partial("steps_waiting", steps.c.state == "waiting", steps.c.partition, steps.c.due_at)
_partial("steps_asked", steps.c.state == "asked", steps.c.partition, steps.c.asked_offset)

tallies = Table(
    "tallies",
    metadata,
    Column("user_id", String, primary_key=True),
    Column("unread", BigInteger, nullable=False),
    Column("unseen", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

early = Table(
    "early",
    metadata,
    Column("user_id", String, nullable=False),
    Column("notice_id", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("value", LargeBinary, nullable=False),
    PrimaryKeyConstraint("user_id", "notice_id", "offset"),
    sqlite_with_rowid=False,
)

marks = Table(
    "marks",
    metadata,
    Column("user_id", String, nullable=False),
    Column("cmd", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("at", BigInteger, nullable=False),
    PrimaryKeyConstraint("user_id", "cmd"),
    Index("marks_by_age", "partition", "at"),
    sqlite_with_rowid=False,
)

preferences = Table(
    "preferences",
    metadata,
    Column("user_id", String, primary_key=True),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    sqlite_with_rowid=False,
)

# ------------------------------------------------------------------ deliveries: what is asked for, and what came of it
delivery_requests = Table(
    "delivery_requests",
    metadata,
    Column("delivery_id", String, primary_key=True),
    Column("user_id", String, nullable=False),
    Column("notice_id", String, nullable=False),
    Column("partition", Integer, nullable=False),
    Column("offset", BigInteger, nullable=False),
    Column("step", String, nullable=False),
    Column("channel", String, nullable=False),
    Column("message_id", String, nullable=False),
    Column("deadline_at", BigInteger, nullable=False),
    Column("requested_at", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Index("delivery_requests_by_notice", "notice_id", "user_id"),
    Index("delivery_requests_by_offset", "partition", "offset"),
)

delivery_results = Table(
    "delivery_results",
    metadata,
    Column("delivery_id", String, primary_key=True),
    Column("attempts", Integer, nullable=False),
    Column("next_at", BigInteger, nullable=False),
    Column("outcome", String, nullable=False),  # waiting | sent | failed | cancelled
    Column("reason", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
_partial("delivery_results_waiting", delivery_results.c.outcome == "waiting", delivery_results.c.next_at)
