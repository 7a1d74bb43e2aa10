"""Alert configs as the configurator's users see them, with the last complaint of their alert program."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Connection, select

from projections.sql.schema import alert_configs, alert_reports


class Thing(NamedTuple):
    """The id, version and body text of a config or recipient that stands."""

    id: str
    version: int
    body: str


class Report(NamedTuple):
    """What an alert program said of a config; `at` in ms."""

    kind: str
    text: str
    at: int


def one(tx: Connection, config_id: str) -> Thing | None:
    """The config, if it stands."""
    c = alert_configs.c
    row = tx.execute(
        select(c.config_id, c.version, c.body).where(c.config_id == config_id, c.deleted.is_(False))
    ).first()
    return Thing(*row) if row else None


def page(tx: Connection, name: str | None, after: str, limit: int) -> list[Thing]:
    """At most `limit` configs with an id after `after`, in the order of their ids; of one alert if `name` is given."""
    c = alert_configs.c
    query = (
        select(c.config_id, c.version, c.body)
        .where(c.deleted.is_(False), c.config_id > after)
        .order_by(c.config_id)
        .limit(limit)
    )
    if name is not None:
        query = query.where(c.name == name)
    return [Thing(*r) for r in tx.execute(query)]


def reports(tx: Connection, config_ids: Iterable[str]) -> dict[str, list[Report]]:
    """Config id to what its alert's shards last said of it since it was changed."""
    c, since = alert_reports.c, alert_configs.c
    query = (
        select(c.config_id, c.kind, c.text, c.at)
        .select_from(alert_reports.join(alert_configs, c.config_id == since.config_id))
        .where(c.config_id.in_(list(config_ids)), c.at >= since.at)
        .order_by(c.at)
    )
    found: dict[str, list[Report]] = {}
    for r in tx.execute(query):
        found.setdefault(r.config_id, []).append(Report(r.kind, r.text, r.at))
    return found
