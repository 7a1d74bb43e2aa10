"""Decides proposals for alert configs and recipients in log order.

Of two edits with one ETag the later is refused (412). A proposal is complete (the gateway has resolved recipients and
channels), so its decision looks at nothing but the version that stands at its turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from projections.outgoing import Outgoing
from topics.catalogue import ALERT_CONFIGS, COMMANDS, RECIPIENTS
from topics.events import (
    AlertConfigDeleted,
    AlertConfigured,
    ChangeRefused,
    ConfigProposed,
    RecipientChanged,
    RecipientDeleted,
    RecipientProposed,
    Record,
)
from topics.ids import derived_id

Proposal = ConfigProposed | RecipientProposed


@dataclass(frozen=True, slots=True)
class Head:
    """The version that stands, and whether the thing is deleted (its numbers then go on when it is made anew)."""

    version: int
    deleted: bool


def subject(proposal: Proposal) -> tuple[str, str]:
    """Kind and id of the thing that a proposal wants changed."""
    return (
        ("config", proposal.config_id) if isinstance(proposal, ConfigProposed) else ("recipient", proposal.recipient_id)
    )


def decide(record: Record, proposal: Proposal, head: Head | None) -> tuple[str, Head | None, Outgoing]:
    """(outcome, the head after it, what to say). Outcome: accepted, or why not: version, exists, missing."""
    refusal = _refusal(proposal, head)
    kind, subject_id = subject(proposal)
    if refusal:
        refused = ChangeRefused(
            event_id=derived_id("proposal", proposal.event_id),
            producer=proposal.producer,
            occurred_at=proposal.occurred_at,
            caused_by=(record.cause,),
            kind=kind,
            subject_id=subject_id,
            proposal_id=proposal.event_id,
            reason=refusal,
            version=head.version if head and not head.deleted else None,
        )
        return refusal, head, Outgoing(COMMANDS, subject_id, refused)
    version = (head.version if head else 0) + 1
    return "accepted", Head(version, proposal.op == "delete"), _accepted(record, proposal, version)


def _refusal(proposal: Proposal, head: Head | None) -> str:
    there = head is not None and not head.deleted
    if proposal.op == "create":
        return "exists" if there else ""
    if proposal.op == "delete" and not there:
        return "missing"
    if proposal.based_on is not None and (head is None or not there or head.version != proposal.based_on):
        return "version"
    return ""


def _accepted(record: Record, p: Proposal, version: int) -> Outgoing:
    event_id, cause = derived_id("proposal", p.event_id), (record.cause,)
    if isinstance(p, ConfigProposed):
        if p.op == "delete":
            gone = AlertConfigDeleted(
                event_id=event_id,
                producer=p.producer,
                occurred_at=p.occurred_at,
                caused_by=cause,
                config_id=p.config_id,
                version=version,
                name=p.name,
            )
            return Outgoing(ALERT_CONFIGS, p.config_id, gone)
        configured = AlertConfigured(
            event_id=event_id,
            producer=p.producer,
            occurred_at=p.occurred_at,
            caused_by=cause,
            config_id=p.config_id,
            version=version,
            name=p.name,
            enabled=p.enabled,
            lanes=p.lanes,
            forward=p.forward,
            body_key=p.body_key,
            body=p.body,
        )
        return Outgoing(ALERT_CONFIGS, p.config_id, configured)
    common: dict[str, Any] = {
        "event_id": event_id,
        "producer": p.producer,
        "occurred_at": p.occurred_at,
        "caused_by": cause,
        "recipient_id": p.recipient_id,
    }
    if p.op == "delete":
        return Outgoing(RECIPIENTS, p.recipient_id, RecipientDeleted(**common, version=version))
    changed = RecipientChanged(**common, version=version, body_key=p.body_key, body=p.body)
    return Outgoing(RECIPIENTS, p.recipient_id, changed)
