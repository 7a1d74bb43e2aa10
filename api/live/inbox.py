"""The live inboxes: for each user who watches, the same fold as in the rows, kept up by the log and shared by that
user's connections.

What `apply` accepted is pushed with the counts of this fold, so that counts hold for their position and nothing waits
for the database. Texts and forwards stay in the rows; only texts that came while somebody watched are kept here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from api.database import Database
from api.live.fan_out import Watcher
from api.live.frames import push, quoted, when
from api.live.log import LiveLog
from api.live.ranges import Ranges
from api.notices.notice_json import notice_text
from api.problems import Problem
from projections.box import Box
from projections.notice import Notice
from projections.notices import Change, apply
from projections.outgoing import Refused
from projections.sql.views import inboxes, positions
from projections.sql.views.inboxes import NO_TEXT
from topics.catalogue import NOTICES
from topics.events import Decided, Due, NoticeMarked, Record, TopicOpened
from topics.fetch import Spot
from topics.partition import partition_of

log = logging.getLogger(__name__)
CHANNEL = "inbox"
TEXTS_KEPT = 200


@dataclass(frozen=True, slots=True)
class Counts:
    """How many stand unread and unseen."""

    unread: int
    unseen: int

    @property
    def text(self) -> str:
        """Its JSON text."""
        return f'{{"unread":{self.unread},"unseen":{self.unseen}}}'


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
        self.counts = Counts(0, 0)
        self.texts = 0

    def start(self, box: Box) -> None:
        """Go on from this fold, with what was kept meanwhile. Takes 0.1 s for a large inbox."""
        self.box = box
        self._flags = {n.notice_id: n.unread + 2 * n.unseen for n in box.notices.values()}
        flags = self._flags.values()
        self.counts = Counts(sum(f & 1 for f in flags), sum(f >> 1 for f in flags))
        self._go_on()

    def follow(self, other: UserInbox) -> None:
        """Go on from where another one of the same user is, which is used no longer."""
        self.box, self._flags, self.counts = other.box, other._flags, other.counts
        self._go_on()

    def _go_on(self) -> None:
        for record in self.kept or ():
            self.fold(record)
        self.kept = None

    def take(self, record: Record) -> None:
        """One record of this user, in log order."""
        if self.kept is not None:
            self.kept.append(record)
            return
        change = self.fold(record)
        if change is None or not self.watchers:
            return
        if change.ids and not any(self.box.notices[self.user, i].inbox for i in change.ids):
            return
        frame = push(CHANNEL, self._token({self.partition: record.offset + 1}), self._event(change, record))
        for watcher in list(self.watchers):
            watcher.tell(frame)

    def fold(self, record: Record) -> Change | None:
        """What `apply` accepts; what it refuses is a dead letter elsewhere and changes nothing here."""
        if record.event is None or isinstance(record.event, TopicOpened | Decided):
            return None
        if getattr(record.event, "user", "") != self.user:
            return None  # a stranger wrote it under this user's key
        if isinstance(record.event, Due) and record.event.what != "snooze":
            return None  # what became of forwards is asked of the rows
        try:
            _, change = apply(self.box, record)
        except Refused as error:
            log.warning("no notice partition=%d offset=%d reason=%s", record.partition, record.offset, error)
            return None
        self.box.touched.clear()
        if change is None:
            return None
        unread, unseen = self.counts.unread, self.counts.unseen
        for notice_id in change.ids:
            notice = self.box.notices[self.user, notice_id]
            old, new = self._flags.get(notice_id, 0), notice.unread + 2 * notice.unseen
            self._flags[notice_id] = new
            unread, unseen = unread + (new & 1) - (old & 1), unseen + (new >> 1) - (old >> 1)
        self.texts += change.op in ("raised", "updated")
        self.counts = Counts(unread, unseen)
        return change

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

    def _event(self, change: Change, record: Record) -> str:
        parts = [f'"op":{quoted(change.op)}']
        if change.op in ("raised", "updated"):
            notice = self.box.notices[self.user, change.ids[0]]
            text = notice_text(notice, notice.body, {} if change.op == "raised" else None)
            parts.append(f'"notice":{text}')
        else:
            parts.append('"ids":[' + ",".join(map(quoted, change.ids)) + "]")
            parts.append(f'"at":{when(record.timestamp)}')
        if isinstance(record.event, NoticeMarked) and record.event.until is not None:
            parts.append(f'"until":{when(record.event.until)}')
        if change.cmd is not None:
            parts.append(f'"cause":{quoted(change.cmd)}')
        return '"event":{' + ",".join(parts) + f'}},"counts":{self.counts.text}'


class LiveInboxes:
    """Loads a user's inbox with the first who watches it, and forgets it with the last."""

    def __init__(self, live: LiveLog, database: Database, ranges: Ranges, seconds: float) -> None:
        self._live, self._database, self._ranges, self._seconds = live, database, ranges, seconds
        self._users: dict[str, UserInbox] = {}

    def watches(self, key: bytes | None) -> bool:
        """Whether records of this key are for somebody here."""
        try:
            return (key or b"").decode() in self._users
        except UnicodeDecodeError:
            return True  # it is no record of ours: that is found out where it is read

    def take(self, record: Record) -> None:
        """One record of `notices`."""
        inbox = self._users.get(record.key)
        if inbox is not None:
            inbox.take(record)
            if inbox.texts > TEXTS_KEPT and inbox.kept is None:
                inbox.texts = 0
                task = asyncio.get_running_loop().create_task(self._spare(inbox))
                task.add_done_callback(lambda t: t.cancelled() or t.exception())

    def forget(self) -> None:
        """The log is another one."""
        for inbox in self._users.values():
            if inbox.loaded:
                inbox.loaded.cancel()
        self._users.clear()

    def now(self, user: str) -> UserInbox | None:
        """The inbox if somebody watches it and it is loaded."""
        inbox = self._users.get(user)
        return inbox if inbox is not None and inbox.kept is None else None

    async def enter(self, user: str) -> UserInbox:
        """The loaded inbox; each `enter` needs a `leave`. Problem `behind` if it can't be loaded in time."""
        inbox = self._users.get(user)
        if inbox is None:
            partition = partition_of(user, self._live.partitions(NOTICES))
            inbox = UserInbox(user, partition, lambda n: self._live.token(NOTICES, n))
            self._users[user] = inbox
            inbox.loaded = asyncio.create_task(self._load(inbox))
        inbox.users += 1
        try:
            if inbox.loaded is not None:
                await asyncio.shield(inbox.loaded)
        except BaseException:
            self.leave(inbox)
            if self._users.get(user) is inbox and inbox.loaded is not None and inbox.loaded.done():
                del self._users[user]  # a failed load is tried anew by the next who comes
            raise
        return inbox

    def leave(self, inbox: UserInbox, watcher: Watcher | None = None) -> None:
        """One who entered goes."""
        if watcher is not None:
            inbox.watchers.discard(watcher)
        inbox.users -= 1
        if inbox.users <= 0 and self._users.get(inbox.user) is inbox:
            if inbox.loaded is not None:
                inbox.loaded.cancel()
            del self._users[inbox.user]

    async def reached(self, partition: int) -> positions.Reached | None:
        """How far the rows of this log have come in a partition; null if they are of another log."""
        found = (await self._database.read(positions.reached, NOTICES)).get(partition)
        spot = Spot(NOTICES, partition)
        return found if found is not None and found.epoch == self._live.opened.get(spot) else None

    async def _load(self, inbox: UserInbox) -> None:
        """Rows and position in one transaction, then the log up to where the reader was, then what was kept since."""
        spot = Spot(NOTICES, inbox.partition)
        start = self._live.positions[spot]

        async def rows() -> inboxes.Inbox | None:
            found = await self._database.read(inboxes.load, inbox.user, inbox.partition)
            if found.epoch == "" and not found.box.notices:
                return found  # this partition has not been begun: everything is still to be read
            return found if found.epoch == self._live.opened.get(spot) else None

        found = await self._database.until(rows, self._seconds)
        if found is None:
            raise Problem("behind", "The inbox is being rebuilt from the log.")
        catching_up = UserInbox(inbox.user, inbox.partition, lambda _: "")
        await asyncio.to_thread(catching_up.start, found.box)
        if found.next < start:
            async for record in self._ranges.of_key(spot, found.next, start, inbox.user):
                catching_up.fold(record)
        elif not await self._live.passes(NOTICES, {inbox.partition: found.next}, self._seconds):
            raise Problem("behind")
        inbox.kept = [r for r in inbox.kept or () if r.offset >= max(start, found.next)]
        inbox.follow(catching_up)

    async def _spare(self, inbox: UserInbox) -> None:
        at = await self.reached(inbox.partition)
        if at is not None:
            inbox.drop_texts(at.next)
