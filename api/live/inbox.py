"""The live inboxes: for each user who watches, the same fold as in the rows, kept up by the log and shared by that
user's connections.

What `apply` accepted is pushed with the counts of this fold, so that counts hold for their position and nothing waits
for the database. Texts and forwards stay in the rows; only texts that came while somebody watched are kept here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import orjson

from api.live.fan_out import Watcher
from api.live.frames import Frame, rfc3339
from api.notices.notice_json import notice_json
from projections.box import Box
from projections.notice import Notice
from projections.notices import Change, apply
from projections.outgoing import Refused
from projections.sql.rows import NO_TEXT
from topics.events import Decided, Due, NoticeMarked, Record, TopicOpened

log = logging.getLogger(__name__)
CHANNEL = "inbox"
_OTHERS = (TopicOpened, Decided)
_TOLD = ("raised", "updated")  # with the notice itself


class UserInbox:
    """One user's fold at the reader's own position, and the user's watchers."""

    def __init__(self, user: str, partition: int, token: Callable[[dict[int, int]], str]) -> None:
        self.user, self.partition = user, partition
        self._token = token
        self.box = Box()
        self.watchers: set[Watcher] = set()
        self.kept: list[Record] | None = []  # what came while the rows were being read
        self.loaded: asyncio.Task[None] | None = None
        self.users = 0
        self._flags: dict[str, int] = {}  # 1 unread, 2 unseen
        self._unread = self._unseen = 0
        self.texts = 0

    @property
    def counts(self) -> dict[str, int]:
        """How many stand unread and unseen."""
        return {"unread": self._unread, "unseen": self._unseen}

    def start(self, box: Box) -> None:
        """Go on from this fold, with what was kept meanwhile. Takes 0.1 s for a large inbox."""
        self.box = box
        self._flags = {n.notice_id: n.unread + 2 * n.unseen for n in box.notices.values()}
        flags = self._flags.values()
        self._unread, self._unseen = sum(f & 1 for f in flags), sum(f >> 1 for f in flags)
        self._go_on()

    def follow(self, other: UserInbox) -> None:
        """Go on from where another one of the same user is, which is used no longer."""
        self.box, self._flags = other.box, other._flags
        self._unread, self._unseen = other._unread, other._unseen
        self._go_on()

    def _go_on(self) -> None:
        for record in self.kept or ():
            self.fold(record)
        self.kept = None

    def take(self, record: Record, *, at_once: bool = False) -> None:
        """One record of this user, in log order; `at_once`: its push waits for no others."""
        if self.kept is not None:
            self.kept.append(record)
            return
        change = self.fold(record)
        if change is None or not self.watchers:
            return
        position = self._token({self.partition: record.offset + 1})
        said = {"channel": CHANNEL, "position": position, "event": self._event(change, record), "counts": self.counts}
        frame = Frame(orjson.dumps(said), position)
        for watcher in tuple(self.watchers):
            watcher.tell(frame, at_once=at_once)

    def fold(self, record: Record) -> Change | None:
        """What `apply` accepts and an inbox shows. What it refuses is a dead letter elsewhere and changes nothing."""
        event = record.event
        if event is None or isinstance(event, _OTHERS):
            return None
        if getattr(event, "user", "") != self.user:
            return None  # a stranger wrote it under this user's key
        if isinstance(event, Due) and event.what != "snooze":
            return None  # what became of forwards is asked of the rows
        try:
            _, change = apply(self.box, record)
        except Refused as error:
            log.warning("no notice partition=%d offset=%d reason=%s", record.partition, record.offset, error)
            return None
        self.box.touched.clear()
        if change is None:
            return None
        shown = not change.ids  # a mark that changed nothing is answered
        for notice_id in change.ids:
            notice = self.box.notices[self.user, notice_id]
            shown = shown or notice.inbox
            old, new = self._flags.get(notice_id, 0), notice.unread + 2 * notice.unseen
            self._flags[notice_id] = new
            self._unread += (new & 1) - (old & 1)
            self._unseen += (new >> 1) - (old >> 1)
        self.texts += change.op in _TOLD
        return change if shown else None

    def newest(self, limit: int) -> list[Notice]:
        """The newest notices that stand in the inbox."""
        standing = (n for n in reversed(self.box.notices.values()) if n.open)  # they came into the box in log order
        return list(islice(standing, limit))

    def changed_since(self, offset: int) -> list[Notice]:
        """Everything changed at or after an offset, oldest first."""
        return [n for n in self.box.notices.values() if n.inbox and n.changed_offset >= offset]

    def drop_texts(self, before: int) -> None:
        """The rows have come to this offset: texts from before it need not be kept."""
        self.texts = 0
        for notice in self.box.notices.values():
            if notice.body == NO_TEXT:
                continue
            if notice.changed_offset < before:
                notice.body, notice.steps = NO_TEXT, {n: s for n, s in notice.steps.items() if s.what == "snooze"}
            else:
                self.texts += 1

    def _event(self, change: Change, record: Record) -> dict[str, Any]:
        event: dict[str, Any] = {"op": change.op}
        if change.op in _TOLD:
            notice = self.box.notices[self.user, change.ids[0]]
            event["notice"] = notice_json(notice, notice.body, {} if change.op == "raised" else None)
        else:
            event |= {"ids": change.ids, "at": rfc3339(record.timestamp)}
        if isinstance(record.event, NoticeMarked) and record.event.until is not None:
            event["until"] = rfc3339(record.event.until)
        if change.cmd is not None:
            event["cause"] = change.cmd
        return event
