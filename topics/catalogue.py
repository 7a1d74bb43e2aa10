"""What is on the log: the topics, their keys, how they are kept, and how many partitions they have.

One place declares them and `tidings topics apply` makes them; the number of partitions is fixed for an epoch of the
log. A catalogue may have a prefix, so that several installations (or tests) share a cluster: inside the program topics
go by the names given here.
"""

from __future__ import annotations

from dataclasses import dataclass

ALERT_CHECKPOINTS = "alert-checkpoints"
ALERT_CONFIGS = "alert-configs"
ALERT_REPORTS = "alert-reports"
COMMANDS = "commands"
CONTROLS = "controls"
DEAD_LETTERS = "dead-letters"
DELIVERIES = "deliveries"
NOTICE_REQUESTS = "notice-requests"
NOTICES = "notices"
RECIPIENTS = "recipients"
SCHEMAS = "schemas"

DAY_MS = 86_400_000
MAX_RECORD_BYTES = 2 * 1024 * 1024
TOPIC_OPENED_KEY = "\x00topic-opened"  # no entity, user or alert can have this name


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic and how it is kept.

    `compacted`: the last record of a key is the truth, older ones may go after `keep_ms`; else `keep_ms` null is for
    ever.
    """

    name: str
    key: str
    events: tuple[str, ...]
    partitions: int
    compacted: bool = False
    keep_ms: int | None = None

    @property
    def config(self) -> dict[str, str]:
        """The broker's settings for this topic."""
        kept = {"cleanup.policy": "delete", "retention.ms": str(-1 if self.keep_ms is None else self.keep_ms)}
        if self.compacted:
            kept = {"cleanup.policy": "compact", "min.compaction.lag.ms": str(self.keep_ms or 0), "retention.ms": "-1"}
        return kept | {
            "retention.bytes": "-1",
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(MAX_RECORD_BYTES),
        }


@dataclass(frozen=True)
class Catalogue:
    """All topics of one installation.

    `partitions` is for the topics that are spread; `entity_lag_ms` see exactness rule 7.
    """

    entity_types: tuple[str, ...]
    prefix: str = ""
    partitions: int = 4
    entity_lag_ms: int = DAY_MS

    def topics(self) -> dict[str, Topic]:
        """Topic name to topic, in the order in which they are made."""
        spread, month = self.partitions, 30 * DAY_MS
        config, recipient = ("AlertConfigured", "AlertConfigDeleted"), ("RecipientChanged", "RecipientDeleted")
        control = ("SilenceSet", "SilenceEnded", "TokenRevoked")
        command = ("ConfigProposed", "RecipientProposed", "ChangeRefused")
        entity = ("EntityChanged",)
        request = ("AlertStarted", "AlertCommitted", "AlertMoved", "NoticeRequested", "NoticeResolved")
        notice = (
            "NoticeRaised",
            "NoticeUpdated",
            "NoticeEnded",
            "NoticeMarked",
            "PreferencesChanged",
            "Due",
            "Decided",
        )
        delivery = ("DeliveryRequested", "DeliveryCancelled", "DeliverySent", "DeliveryRetried", "DeliveryFailed")
        lag = self.entity_lag_ms
        declared = [
            Topic(SCHEMAS, "fingerprint", ("SchemaPublished",), 1, compacted=True, keep_ms=0),
            Topic(DEAD_LETTERS, "as the record", (), 1),
            Topic(CONTROLS, "id", control, 1, compacted=True, keep_ms=month),
            Topic(COMMANDS, "id of the thing", command, 1, keep_ms=month),
            Topic(ALERT_CONFIGS, "config id", config, 1, compacted=True, keep_ms=month),
            Topic(RECIPIENTS, "user id", recipient, 1, compacted=True, keep_ms=month),
            *(
                Topic(entity_topic(t), "entity id", entity, spread, compacted=True, keep_ms=lag)
                for t in self.entity_types
            ),
            Topic(NOTICE_REQUESTS, "alert, or subject and key", request, spread),
            Topic(NOTICES, "user id or channel:address", notice, spread),
            Topic(DELIVERIES, "as the Decided", delivery, spread),
            Topic(ALERT_CHECKPOINTS, "alert/shard/part", ("AlertCheckpointed",), 1, compacted=True, keep_ms=0),
            Topic(ALERT_REPORTS, "alert/shard", ("AlertReported",), 1, keep_ms=month),
        ]
        return {t.name: t for t in declared}

    def physical(self, name: str) -> str:
        """The topic's name on the cluster."""
        return self.prefix + name

    def logical(self, name: str) -> str:
        """The catalogue's name of a topic on the cluster."""
        return name.removeprefix(self.prefix)


def entity_topic(entity_type: str) -> str:
    """The topic of one type of entities."""
    return f"entities.{entity_type}"
