"""A user's notice and what waits for it, as the fold of `notices` keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field

UNREAD, READ, SNOOZED, ARCHIVED, NOWHERE = range(5)
STATES = {
    "open": (UNREAD, READ),
    "all": (UNREAD, READ, SNOOZED, ARCHIVED),
    "unread": (UNREAD,),
    "read": (READ,),
    "archived": (ARCHIVED,),
    "snoozed": (SNOOZED,),
}


@dataclass(slots=True)
class Step:
    """One thing that waits. `number` grows whenever it is set anew; `asked_*` is what its partition said at the Due.

    `state`: waiting for its time; asked; collected in an open digest, gathered in one that is being decided (`held_in`
    names it); delivered; skipped; returned. `told` is the number under which it was last delivered, `told_at` when that
    was due (null for what a digest carried), `earlier` what was told before (projections.told); `scope` is the config
    whose throttle counts it.
    """

    what: str
    step: str
    channel: str
    kind: str
    value: str
    due_at: int
    number: int = 0
    state: str = "waiting"
    reason: str = ""
    asked_offset: int | None = None
    asked_at: int | None = None
    asked_preferences: str = ""
    scope: str = ""
    told: int | None = None
    told_at: int | None = None
    held_in: str = ""
    earlier: str = ""

    def wait(self, until: int) -> None:
        """Set it anew: what was asked or will be said of the number before counts no more."""
        self.number, self.state, self.due_at = self.number + 1, "waiting", until


@dataclass(slots=True)
class Notice:
    """One user's notice. `version` is the position of the newest update; `hold` the latest snooze ever asked for."""

    user: str
    notice_id: str
    raised_offset: int
    raised_at: int
    changed_offset: int
    inbox: bool
    kind: str
    alert: str | None
    config_id: str | None
    key: str | None
    entity_type: str | None
    entity_id: str | None
    severity: str
    forward: str
    body: str
    version: tuple[int, int] = (-1, -1)
    seen_at: int | None = None
    read_at: int | None = None
    archived_at: int | None = None
    snoozed_until: int | None = None
    hold: int = 0
    ended_at: int | None = None
    stopped: bool = False
    steps: dict[str, Step] = field(default_factory=dict)

    @property
    def place(self) -> int:
        """Where it lies in its user's inbox: `PLACE` in the schema is the same in SQL."""
        if not self.inbox:
            return NOWHERE
        if self.archived_at is not None:
            return ARCHIVED
        if self.snoozed_until is not None:
            return SNOOZED
        return UNREAD if self.read_at is None else READ

    @property
    def open(self) -> bool:
        """Whether it stands in the inbox now: neither archived nor snoozed."""
        return self.place in STATES["open"]

    @property
    def unread(self) -> bool:
        """Counted as unread."""
        return self.place == UNREAD

    @property
    def unseen(self) -> bool:
        """Counted as unseen (the badge)."""
        return self.open and self.seen_at is None
