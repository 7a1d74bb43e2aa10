"""Recipients: one, a page, which of some ids exist, and which ids are like one that does not."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from projections.sql.keys import among
from projections.sql.schema import recipients
from projections.sql.views.alert_configs import Thing

_c = recipients.c
_BODIES = select(_c.recipient_id, _c.body).where(among(_c.recipient_id), _c.deleted.is_(False))


def one(tx: Connection, recipient_id: str) -> Thing | None:
    """The recipient, if it stands."""
    row = tx.execute(
        select(_c.recipient_id, _c.version, _c.body).where(_c.recipient_id == recipient_id, _c.deleted.is_(False))
    ).first()
    return Thing(*row) if row else None


def page(tx: Connection, after: str, limit: int) -> list[Thing]:
    """At most `limit` recipients with an id after `after`, in the order of their ids."""
    found = select(_c.recipient_id, _c.version, _c.body).where(_c.deleted.is_(False), _c.recipient_id > after)
    return [Thing(*r) for r in tx.execute(found.order_by(_c.recipient_id).limit(limit))]


def bodies(tx: Connection, ids: Iterable[str]) -> dict[str, str]:
    """Of these ids those that are recipients, with their body texts."""
    return {row[0]: row[1] for row in tx.execute(_BODIES, {"keys": ids})}


def some_ids(tx: Connection, limit: int) -> list[str]:
    """Ids among which a nearest one is looked for."""
    return [str(i) for i in tx.execute(select(_c.recipient_id).where(_c.deleted.is_(False)).limit(limit)).scalars()]
