"""Decides proposals for alert configs and recipients in log order.

Of two edits with one ETag the later is refused (412). A proposal is complete (the gateway has resolved recipients and
channels), so its decision looks at nothing but the version that stands at its turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from projections.outgoing import Outgoing, source_of
from topics.catalogue import ALERT_CONFIGS, COMMANDS, RECIPIENTS
from topics.events import (
    AlertConfigDeleted,
    AlertConfigured,
    ChangeRefused,
    ConfigProposed,
    Event,
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
    common = {"event_id": derived_id("proposal", proposal.event_id), **source_of(record)}
    if refusal:
        kind, subject_id = subject(proposal)
        refused = ChangeRefused(
            **common,
            kind=kind,
            subject_id=subject_id,
            proposal_id=proposal.event_id,
            reason=refusal,
            version=head.version if head and not head.deleted else None,
        )
        return refusal, head, Outgoing(COMMANDS, subject_id, refused)
    version = (head.version if head else 0) + 1
    return "accepted", Head(version, proposal.op == "delete"), _accepted(proposal, common | {"version": version})


def _refusal(proposal: Proposal, head: Head | None) -> str:
    there = head is not None and not head.deleted
    if proposal.op == "create":
        return "exists" if there else ""
    if proposal.op == "delete" and not there:
        return "missing"
    if proposal.based_on is not None and (head is None or not there or head.version != proposal.based_on):
        return "version"
    return ""


def _accepted(p: Proposal, common: dict[str, Any]) -> Outgoing:
    """`common`: what all events say of themselves, and the new version."""
    event: Event
    match p:
        case ConfigProposed(op="delete"):
            event = AlertConfigDeleted(**common, config_id=p.config_id, name=p.name)
        case ConfigProposed():
            event = AlertConfigured(
                **common,
                config_id=p.config_id,
                name=p.name,
                enabled=p.enabled,
                lanes=p.lanes,
                forward=p.forward,
                body_key=p.body_key,
                body=p.body,
            )
        case RecipientProposed(op="delete"):
            event = RecipientDeleted(**common, recipient_id=p.recipient_id)
        case RecipientProposed():
            event = RecipientChanged(**common, recipient_id=p.recipient_id, body_key=p.body_key, body=p.body)
    kind, subject_id = subject(p)
    return Outgoing(ALERT_CONFIGS if kind == "config" else RECIPIENTS, subject_id, event)
