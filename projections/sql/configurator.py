"""The rows behind `commands`: proposals as they are asked, and versions as they were decided, in log order (rule 2).

The answer to a proposal stands on `alert-configs` or `recipients` (compacted: the newest names the offset of the
proposal that it accepts, so all before it are answered) or comes back here as ChangeRefused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select, update

from projections.configurator import Head, Proposal, decide, subject
from projections.outgoing import Outgoing, out_of_place
from projections.sql.fold import Decider
from projections.sql.schema import THINGS, heads, proposals
from projections.sql.store import insert_new, upsert
from projections.sql.truths import json_text
from topics.catalogue import COMMANDS
from topics.codec import decode, encode
from topics.events import ChangeRefused, ConfigProposed, RecipientProposed, Record
from topics.fetch import Spot


@dataclass(slots=True)
class State:
    """What a batch adds: proposals asked, refusals read back."""

    asked: list[tuple[Record, Proposal]] = field(default_factory=list)
    refused: list[ChangeRefused] = field(default_factory=list)


class ConfiguratorFold:
    """TopicFold of `commands`."""

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> State:
        """Nothing is needed to note what is asked."""
        return State()

    def apply(self, state: State, record: Record) -> list[Outgoing]:
        """A proposal is a question; a refusal read back is its answer."""
        match record.event:
            case ConfigProposed() | RecipientProposed() as e:
                if e.op != "delete":
                    json_text(e.body)
                state.asked.append((record, e))
            case ChangeRefused() as e:
                state.refused.append(e)
            case _:
                raise out_of_place(record)
        return []

    def save(self, tx: Connection, spot: Spot, state: State) -> None:
        """A proposal that comes twice is asked once."""
        rows = []
        for record, e in state.asked:
            kind, subject_id = subject(e)
            rows.append(
                {
                    "proposal_id": e.event_id,
                    "kind": kind,
                    "subject_id": subject_id,
                    "offset": record.offset,
                    "outcome": "asked",
                    "version": None,
                    "at": record.timestamp,
                    "value": encode(e),
                }
            )
        insert_new(tx, proposals, rows)
        for refused in state.refused:
            tx.execute(
                update(proposals)
                .where(proposals.c.proposal_id == refused.proposal_id)
                .values(outcome=refused.reason, version=refused.version, value=b"")
            )

    def answers(self, tx: Connection, spot: Spot, state: State, decider: Decider) -> list[tuple[int, Outgoing]]:
        """Decide every asked proposal in log order."""
        p = proposals.c
        out = []
        for row in tx.execute(select(proposals).where(p.outcome == "asked").order_by(p.offset)).all():
            proposal = _proposal(bytes(row.value))
            head, answered_to, answered_at = _head(tx, proposal)
            if row.offset <= answered_to and row.at <= answered_at:
                outcome, version = "accepted", head.version if head else None
            else:
                record = Record(COMMANDS, spot.partition, row.offset, row.at, row.subject_id, proposal)
                outcome, after, said = decide(record, proposal, head)
                version = after.version if after else None
                out.append((row.offset, said))
                if outcome == "accepted" and after:
                    kind, subject_id = subject(proposal)
                    upsert(
                        tx,
                        heads,
                        [{"kind": kind, "subject_id": subject_id, "version": after.version, "deleted": after.deleted}],
                    )
            tx.execute(
                update(proposals)
                .where(p.proposal_id == row.proposal_id)
                .values(outcome=outcome, version=version, value=b"")
            )
        return out

    def asked(self, tx: Connection, spot: Spot) -> State | None:
        """Anything asked and unanswered."""
        found = tx.execute(select(proposals.c.offset).where(proposals.c.outcome == "asked").limit(1)).first()
        return State() if found else None


def _proposal(value: bytes) -> Proposal:
    """What `save` wrote."""
    match decode(value):
        case ConfigProposed() | RecipientProposed() as proposal:
            return proposal
        case other:
            raise TypeError(f"{type(other).__name__} is no proposal")


def _head(tx: Connection, proposal: Proposal) -> tuple[Head | None, int, int]:
    """The version as decided, and up to which proposal (its offset, its log time) the log's own truth answers.

    Where nothing was decided here yet, the version is that of the truth.
    """
    kind, subject_id = subject(proposal)
    at = THINGS[kind]
    t = at.table.c
    truth = tx.execute(select(t.version, t.deleted, t.proposed_at_offset, t.at).where(at == subject_id)).first()
    row = tx.execute(
        select(heads.c.version, heads.c.deleted).where(heads.c.kind == kind, heads.c.subject_id == subject_id)
    ).first()
    head = Head(truth.version, truth.deleted) if truth else None
    if row and (head is None or row.version > head.version):
        head = Head(row.version, row.deleted)
    return (head, truth.proposed_at_offset, truth.at) if truth else (head, -1, -1)
