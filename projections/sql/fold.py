"""How the fold of one topic meets its rows.

Load what a batch touches, apply each record to it, save what changed, answer what is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from projections.outgoing import Outgoing
from topics.events import Record
from topics.fetch import Spot


@dataclass(frozen=True, slots=True)
class Decider:
    """Who decides, and when by its own clock (µs): stands in the answers, never compared."""

    producer: str
    occurred_at: int


class TopicFold(Protocol):
    """The fold of one topic over rows. Its state lives for one transaction."""

    def load(self, tx: Connection, spot: Spot, records: Sequence[Record]) -> Any:
        """The state that these records touch."""

    def apply(self, state: Any, record: Record) -> Sequence[Outgoing]:
        """Fold one record (pure but for `state`); what has to be said, at most as much of it made as is asked for.

        Refused: it becomes a dead letter.
        """

    def save(self, tx: Connection, spot: Spot, state: Any) -> None:
        """Write back what changed."""

    def answers(self, tx: Connection, spot: Spot, state: Any, decider: Decider) -> list[tuple[int, Outgoing]]:  # noqa: ARG002 - of most topics nothing is asked
        """Decisions on what is asked and unanswered: (offset of the question, answer)."""
        return []

    def asked(self, tx: Connection, spot: Spot) -> Any:  # noqa: ARG002 - of most topics nothing is asked
        """The state of everything on this partition that is asked and unanswered; null if there is nothing."""
        return None
