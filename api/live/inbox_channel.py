"""A subscription to a user's inbox. It resumes by rows, not by replay: the answer has what changed since the token,
however long ago.

States and counts come from the live fold at the reader's own position; the rows only lend their texts and forwards, and
may be behind or ahead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import orjson

from api.http.cursors import encode_cursor
from api.live.connection import Connection
from api.live.entity_channel import log_away, settle
from api.live.fan_out import Watcher
from api.live.frames import answer_text, quoted
from api.live.inbox import CHANNEL, UserInbox
from api.live.protocol import Subscribe
from api.notices.notice_json import notice_text
from api.problems import Problem
from projections.box import HELD
from projections.forwarding import FORWARDS
from projections.notice import Notice
from projections.sql.rows import NO_TEXT
from projections.sql.views import notices, positions
from projections.sql.views.notices import Cursor, Delivery
from topics.catalogue import NOTICES

if TYPE_CHECKING:
    from api.gateway import Gateway


class InboxSubscription:
    """One client on its user's inbox."""

    def __init__(
        self, gateway: Gateway, connection: Connection, request_id: int | str | None, asked: Subscribe
    ) -> None:
        self._gateway, self._connection, self._request_id, self._asked = gateway, connection, request_id, asked
        self.watcher = Watcher(connection, None, gateway.settings.limits.held_bytes)
        self.task: asyncio.Task[None] | None = None
        self.answered = False
        self._inbox: UserInbox | None = None

    def stop(self) -> None:
        """Watch no longer."""
        if self.task is not None:
            self.task.cancel()
        if self._inbox is not None:
            inbox, self._inbox = self._inbox, None
            self._gateway.inboxes.leave(inbox, self.watcher)

    async def run(self) -> None:
        """The answer, then the frames of all."""
        if not await self._gateway.started(self._gateway.settings.limits.wait) or self._connection.identity is None:
            raise Problem("not_ready")
        with log_away():
            self._inbox = inbox = await self._gateway.inboxes.enter(self._connection.identity.user)
        since = await self._offset_of(inbox, self._asked.since) if self._asked.since is not None else None
        texts = await _Texts(self._gateway, inbox, since, wanted=self._asked.snapshot or since is not None).read()
        # From here to `add` nothing else happens: the answer and what follows it fit together.
        pages, cursor = texts.pages(self._gateway.settings.limits.snapshot_rows)
        position = self._gateway.live.token(NOTICES, {inbox.partition: texts.at})
        counts = orjson.dumps(inbox.counts).decode()
        inbox.watchers.add(self.watcher)
        if since is not None:
            self._gateway.metrics.resumes.labels(CHANNEL, "from_rows").inc()
        for page in pages[:-1]:
            self._answer(f'"channel":"{CHANNEL}","snapshot":[{page}],"more":true')
            if not await self._connection.drained():
                return
        ends = '"resumed":true' if since is not None else f'"next":{quoted(cursor) if cursor else "null"}'
        rows = f'"snapshot":[{pages[-1]}],{ends}'
        self._answer(f'"channel":"{CHANNEL}","position":"{position}",{rows},"counts":{counts}', position)
        await settle(self.watcher, self._connection)

    async def _offset_of(self, inbox: UserInbox, since: str) -> int:
        _, position = self._gateway.live.understood(since, (NOTICES,))
        if inbox.partition not in position.next:
            raise Problem("position_lost", "The position belongs to another user's inbox.")
        if not await self._gateway.live.passes(NOTICES, position.next, self._gateway.settings.limits.wait):
            raise Problem("behind", "This gateway has not read that far yet.")
        return position.next[inbox.partition]

    def _answer(self, members: str, position: str | None = None) -> None:
        self.answered = True
        self._connection.write(answer_text(self._request_id, members, position))


class _Texts:
    """The notices that an answer shows: states from the live fold, texts and forwards from the rows where they are."""

    def __init__(self, gateway: Gateway, inbox: UserInbox, since: int | None, *, wanted: bool) -> None:
        self._gateway, self._inbox, self._since, self._wanted = gateway, inbox, since, wanted
        self._rows: dict[str, Notice] = {}
        self._deliveries: dict[str, Delivery] = {}

    @property
    def at(self) -> int:
        """The offset up to which the live fold has come."""
        return self._gateway.live.vector(NOTICES)[self._inbox.partition]

    async def read(self) -> _Texts:
        """Read what is missing. Problem `behind` if the rows don't come to hold it in time."""
        loop = asyncio.get_running_loop()
        give_up, pause, rows_at = loop.time() + self._gateway.settings.limits.wait, 0.01, 0
        wanted = [n.notice_id for n in self._shown()]
        while wanted or rows_at > self.at:
            if loop.time() > give_up:
                raise Problem("behind", "The inbox is being rebuilt from the log.")
            before = len(self._rows)
            rows_at = await self._gateway.database.read(self._fetch, wanted)
            if await self._gateway.live.passes(NOTICES, {self._inbox.partition: rows_at}, 1.0):
                wanted = self._missing()
                if wanted and len(self._rows) == before:
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 0.2)
        return self

    def pages(self, rows: int) -> tuple[list[str], str | None]:
        """JSON texts of the notices, at most `rows` a page, at least one page; and the cursor of older ones."""
        shown = self._shown()
        texts = [notice_text(n, n.body, self._deliveries) for n in map(self._whole, shown)]
        pages = [",".join(texts[i : i + rows]) for i in range(0, len(texts), rows)] or [""]
        more = self._since is None and len(shown) == self._gateway.settings.limits.inbox_page
        return pages, encode_cursor(Cursor(shown[-1].raised_offset, shown[-1].notice_id)) if more else None

    def _shown(self) -> Sequence[Notice]:
        if not self._wanted:
            return []
        if self._since is not None:
            return self._inbox.changed_since(self._since)
        return self._inbox.newest(self._gateway.settings.limits.inbox_page)

    def _missing(self) -> list[str]:
        return [n.notice_id for n in self._shown() if n.body == NO_TEXT and n.notice_id not in self._rows]

    def _whole(self, live: Notice) -> Notice:
        """What the live fold has of a notice, with what only the row has."""
        row = self._rows.get(live.notice_id)
        if row is None:
            return live
        steps = row.steps
        if live.stopped and not row.stopped:  # the rows are behind: what waits there is over
            reason = "ended" if live.ended_at else "archived" if live.archived_at else "read"
            over = {n for n, s in steps.items() if s.what in FORWARDS and s.state in ("waiting", *HELD)}
            steps = {n: replace(s, state="skipped", reason=reason) if n in over else s for n, s in steps.items()}
        return replace(live, body=row.body if live.body == NO_TEXT else live.body, steps=steps)

    def _fetch(self, tx: Any, wanted: list[str]) -> int:
        """In a thread of the database: these rows, and the offset that the rows have come to."""
        found = notices.by_ids(tx, self._inbox.user, wanted)
        self._rows |= {n.notice_id: n for n in found}
        self._deliveries |= notices.deliveries(tx, found)
        at = positions.reached(tx, NOTICES).get(self._inbox.partition)
        return at.next if at else 0
