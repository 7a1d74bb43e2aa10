"""From rows to what the folds work on."""

from __future__ import annotations

from typing import Any

from projections.notice import Notice, Step


def step_of(row: Any) -> Step:
    """A step from its row in `steps`."""
    return Step(
        what=row.what,
        step=row.step,
        channel=row.channel,
        kind=row.kind,
        value=row.value,
        due_at=row.due_at,
        number=row.number,
        state=row.state,
        reason=row.reason,
        asked_offset=row.asked_offset,
        asked_at=row.asked_at,
        asked_preferences=row.asked_preferences or "",
        scope=row.scope,
        told=row.told,
        told_at=row.told_at,
        held_in=row.held_in,
    )


def notice_of(row: Any, body: str, steps: dict[str, Step]) -> Notice:
    """A notice from its row in `notices`; the body is given apart because not every reader fetches it."""
    return Notice(
        user=row.user_id,
        notice_id=row.notice_id,
        raised_offset=row.raised_offset,
        raised_at=row.raised_at,
        changed_offset=row.changed_offset,
        inbox=row.inbox,
        kind=row.kind,
        alert=row.alert,
        config_id=row.config_id,
        key=row.key,
        entity_type=row.entity_type,
        entity_id=row.entity_id,
        severity=row.severity,
        forward=row.forward,
        body=body,
        version=(row.version_offset, row.version_index),
        seen_at=row.seen_at,
        read_at=row.read_at,
        archived_at=row.archived_at,
        snoozed_until=row.snoozed_until,
        hold=row.hold,
        ended_at=row.ended_at,
        stopped=row.stopped,
        steps=steps,
    )
