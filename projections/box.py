"""What the fold of `notices` keeps of a partition, or of the part of it that a batch or a user needs."""

from __future__ import annotations

from dataclasses import dataclass, field

from projections.notice import Notice, Step
from topics.events import Record

HELD = ("collected", "gathered")


@dataclass(slots=True)
class Box:
    """(user, notice id) to notice, commands already taken, preferences, records that came early.

    `held`: of a digest (user, its id) the steps (notice id, name) that were put into it; some may have left it since.
    """

    notices: dict[tuple[str, str], Notice] = field(default_factory=dict)
    commands: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    preferences: dict[str, str] = field(default_factory=dict)
    early: dict[tuple[str, str], list[Record]] = field(default_factory=dict)
    held: dict[tuple[str, str], set[tuple[str, str]]] = field(default_factory=dict)
    touched: set[tuple[str, str]] = field(default_factory=set)

    def add_step(self, notice: Notice, step: Step) -> None:
        """Take in a step that was kept in a row."""
        name = f"{step.what}/{step.step}"
        notice.steps[name] = step
        if step.state in HELD:
            self.held.setdefault((notice.user, step.held_in), set()).add((notice.notice_id, name))
