"""What became of a proposal on `commands`."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from projections.sql.schema import THINGS, proposals


class Outcome(NamedTuple):
    """`outcome` is accepted, version, exists or missing; `version` the one made, or the one that stands."""

    outcome: str
    version: int | None


def outcome(tx: Connection, kind: str, subject_id: str, proposal_id: str) -> Outcome | None:
    """The outcome once it is decided and, if accepted, in the rows. `kind` is config or recipient."""
    row = tx.execute(
        select(proposals.c.outcome, proposals.c.version).where(proposals.c.proposal_id == proposal_id)
    ).first()
    if row is None or row.outcome == "asked":
        return None
    found = Outcome(row.outcome, row.version)
    if found.outcome != "accepted":
        return found
    subject = THINGS[kind]
    newest = tx.execute(select(subject.table.c.version).where(subject == subject_id)).scalar() or 0
    return found if newest >= (found.version or 0) else None
