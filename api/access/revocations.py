"""Tokens that are refused before their time, as the log says: single ones, or all that a user was given until a moment.

Loaded from the rows and then kept by the gateway's reader; nobody is let in before it is known who is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from projections.sql.views.revocations import Revocation
from topics.events import Event, TokenRevoked

if TYPE_CHECKING:
    from api.access.tokens import Identity

FOR_EVER = 253_402_300_799_999  # ms, the last that RFC 3339 can write
FEW = 1_000
MARGIN_MS = 3_600_000  # for how long a token's revocation outlives it: clocks differ


class Revocations:
    """Used in the gateway's event loop only."""

    def __init__(self, read_to_the_end: Callable[[], bool] = lambda: True) -> None:
        self._read_to_the_end, self._complete = read_to_the_end, False
        self._ids: dict[str, int] = {}
        self._look_at = FEW
        self._users: dict[str, int] = {}

    @property
    def complete(self) -> bool:
        """Whether all is known that stood on the log at the start."""
        self._complete = self._complete or self._read_to_the_end()
        return self._complete

    def load(self, rows: Iterable[Revocation]) -> None:
        """What the rows say. They may be behind what was read: what was revoked stays revoked."""
        for row in rows:
            self._note(row.token_id, row.user, row.issued_until, row.until)

    def take(self, event: Event | None, now: int) -> bool:
        """A record of `controls`, and the log's time (ms); whether it revokes something."""
        if not isinstance(event, TokenRevoked):
            return False
        if len(self._ids) >= self._look_at:  # now and then, for it costs as much as there are
            self._ids = {i: until for i, until in self._ids.items() if until >= now}
            self._look_at = FEW + 2 * len(self._ids)
        self._note(event.token_id, event.user, event.issued_until, event.until)
        return True

    def refuse(self, token: Identity) -> bool:
        """Whether the token holds no longer; one that does not say when it was issued was issued at the beginning."""
        return token.token_id in self._ids or (
            token.user in self._users and token.issued_at * 1000 <= self._users[token.user]
        )

    def _note(self, token_id: str, user: str | None, issued_until: int, until: int) -> None:
        if token_id:
            self._ids[token_id] = max(until, self._ids.get(token_id, 0))
        elif user is not None:
            self._users[user] = max(issued_until, self._users.get(user, 0))
