"""Who watches an inbox: loads it from the rows and the log with the first who comes, and forgets it with the last.

Those who come together are loaded together: after a gateway's start a thousand may come at once.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from api.database import Database
from api.live.fan_out import Watcher
from api.live.inbox import UserInbox
from api.live.log import LiveLog
from api.live.ranges import Ranges
from api.problems import Problem
from projections.sql.views import inboxes, positions
from topics.catalogue import NOTICES
from topics.events import Record
from topics.fetch import Spot
from topics.partition import partition_of

TEXTS_KEPT = 200
TOGETHER = 50  # users whose rows are read at once
FEW = 1_000  # notices that are counted in no time


class _Found(NamedTuple):
    """A user's rows, and what came `later` on the log, up to the offset `end`."""

    rows: inboxes.Inbox
    end: int
    later: list[Record]


class LiveInboxes:
    """Loads a user's inbox with the first who watches it, and forgets it with the last."""

    def __init__(self, live: LiveLog, database: Database, ranges: Ranges, seconds: float) -> None:
        self._live, self._database, self._ranges, self._seconds = live, database, ranges, seconds
        self._users: dict[str, UserInbox] = {}
        self._asking: tuple[dict[str, int], asyncio.Task[dict[str, _Found]]] | None = None
        self._turns = asyncio.Semaphore(2)  # whoever has a large inbox holds up few others

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
            inbox.take(record, at_once=self._live.few)
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
        found = await self._database.until(lambda: self._ask(inbox), self._seconds)
        if found is None:
            raise Problem("behind", "The inbox is being rebuilt from the log.")
        catching_up = UserInbox(inbox.user, inbox.partition, lambda _: "")
        if len(found.rows.box.notices) > FEW:
            await asyncio.to_thread(catching_up.start, found.rows.box)
        else:
            catching_up.start(found.rows.box)
        for record in found.later:
            catching_up.fold(record)
        if not await self._live.passes(NOTICES, {inbox.partition: found.rows.next}, self._seconds):
            raise Problem("behind")
        inbox.kept = [r for r in inbox.kept or () if r.offset >= max(found.end, found.rows.next)]
        inbox.follow(catching_up)

    async def _ask(self, inbox: UserInbox) -> _Found | None:
        """What stood there up to now; null while the rows are of another log. Those who ask while others are answered
        are answered together.
        """
        if self._asking is None:
            asked: dict[str, int] = {}
            self._asking = asked, asyncio.create_task(self._answer(asked))
            self._asking[1].add_done_callback(lambda t: t.cancelled() or t.exception())  # all may have gone
        users, answer = self._asking
        users[inbox.user] = inbox.partition
        if len(users) == TOGETHER:
            self._asking = None
        return (await asyncio.shield(answer)).get(inbox.user)

    async def _answer(self, users: dict[str, int]) -> dict[str, _Found]:
        async with self._turns:
            if self._asking is not None and self._asking[0] is users:
                self._asking = None
            ends = {p: self._live.positions[Spot(NOTICES, p)] for p in users.values()}
            rows = await self._database.read(inboxes.load, users)
            found: dict[str, _Found] = {}
            begun: dict[int, int] = {}
            for user, read in rows.items():
                partition = users[user]
                unbegun = read.epoch == "" and not read.box.notices  # everything is still to be read
                if unbegun or read.epoch == self._live.opened.get(Spot(NOTICES, partition)):
                    begun[partition] = read.next
                    found[user] = _Found(read, ends[partition], [])
            for partition, start in begun.items():
                keys = {user for user in found if users[user] == partition}
                async for record in self._ranges.of_keys(Spot(NOTICES, partition), start, ends[partition], keys):
                    found[record.key].later.append(record)
            return found

    async def _spare(self, inbox: UserInbox) -> None:
        at = await self.reached(inbox.partition)
        if at is not None:
            inbox.drop_texts(at.next)
