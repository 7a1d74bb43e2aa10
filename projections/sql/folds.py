"""Which fold reads which topic, and the version of them all (it stands in the schema's STAMP)."""

from __future__ import annotations

from projections.sql.configurator import ConfiguratorFold
from projections.sql.fan_out import FanOutFold
from projections.sql.fold import TopicFold
from projections.sql.notices import NoticesFold
from projections.sql.schema import alert_configs, alert_reports, entities, recipients
from projections.sql.truths import (
    ControlsFold,
    DeliveriesFold,
    TruthFold,
    config_row,
    entity_row,
    recipient_row,
    report_row,
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


_FOLDS: dict[str, TopicFold] = {
    ALERT_CONFIGS: TruthFold(alert_configs, config_row),
    RECIPIENTS: TruthFold(recipients, recipient_row),
    CONTROLS: ControlsFold(),
    COMMANDS: ConfiguratorFold(),
    ALERT_REPORTS: TruthFold(alert_reports, report_row),
    DELIVERIES: DeliveriesFold(),
    NOTICES: NoticesFold(),
    NOTICE_REQUESTS: FanOutFold(),
    DEAD_LETTERS: TruthFold(alert_reports, report_row),
    "entities": TruthFold(entities, entity_row),
}


def fold_of(topic: str) -> TopicFold:
    """The fold that reads `topic`; dead letters have none (they are noted as they are)."""
    return _FOLDS["entities" if topic.startswith("entities.") else topic]
