"""Which fold reads which topic, and the version of them all (it stands in the schema's STAMP)."""

from __future__ import annotations

from collections.abc import Callable

from projections.sql.configurator import ConfiguratorFold
from projections.sql.fan_out import FanOutFold
from projections.sql.fold import TopicFold
from projections.sql.notices import NoticesFold
from projections.sql.truths import (
    ControlsFold,
    DeliveriesFold,
    alert_configs_fold,
    entities_fold,
    recipients_fold,
    reports_fold,
)
from topics.catalogue import (
    ALERT_CONFIGS,
    ALERT_REPORTS,
    COMMANDS,
    CONTROLS,
    DEAD_LETTERS,
    DELIVERIES,
    NOTICE_REQUESTS,
    NOTICES,
    RECIPIENTS,
    Catalogue,
)


def folded_topics(catalogue: Catalogue) -> list[str]:
    """The topics that a worker folds into rows; dead letters first (rule 6)."""
    entity_topics = [t for t in catalogue.topics() if t.startswith("entities.")]
    return [
        DEAD_LETTERS,
        ALERT_CONFIGS,
        RECIPIENTS,
        CONTROLS,
        COMMANDS,
        ALERT_REPORTS,
        *entity_topics,
        DELIVERIES,
        NOTICES,
        NOTICE_REQUESTS,
    ]


def fold_of(topic: str) -> TopicFold:
    """The fold that reads `topic`; dead letters have none (they are noted as they are)."""
    if topic.startswith("entities."):
        return entities_fold()
    folds: dict[str, Callable[[], TopicFold]] = {
        ALERT_CONFIGS: alert_configs_fold,
        RECIPIENTS: recipients_fold,
        CONTROLS: ControlsFold,
        COMMANDS: ConfiguratorFold,
        ALERT_REPORTS: reports_fold,
        DELIVERIES: DeliveriesFold,
        NOTICES: NoticesFold,
        NOTICE_REQUESTS: FanOutFold,
        DEAD_LETTERS: reports_fold,
    }
    return folds[topic]()
