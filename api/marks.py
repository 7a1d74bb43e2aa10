"""Marks and preferences: sent to the user's own partition without asking what stands there, because `apply` decides
(rule 9).

A command that was taken already is answered with its position instead, so that a client that repeats it can let go of
it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from api.live.protocol import MarkRequest
from api.problems import Problem, over
from api.proposals import stamp
from api.sending import put
from projections.sql.views import notices
from topics.catalogue import NOTICES
from topics.events import NoticeMarked
from topics.partition import partition_of
from topics.produce import now_us

if TYPE_CHECKING:
    from api.gateway import Gateway

LATEST_MS = 366 * 86_400_000


@dataclass(frozen=True, slots=True)
class Marked:
    """`offset`: the record's, in `partition` of `notices`; `done`: it had been taken before."""

    partition: int
    offset: int
    done: bool


async def mark(gateway: Gateway, user: str, asked: MarkRequest) -> Marked:
    """Send a mark, once. Problem; `log_away` where it is not known whether it arrived."""
    limits = gateway.settings.limits
    if asked.ids is not None and len(asked.ids) > limits.mark_ids:
        raise over("mark_ids", limits.mark_ids, "ids in one command")
    partition = partition_of(user, gateway.live.partitions(NOTICES))
    up_to = _up_to(gateway, asked.up_to, partition)
    until = None if asked.until is None else until_ms(asked.until, now_us() // 1000)
    taken = await _taken(gateway, user, asked.cmd)
    if taken is not None:
        return Marked(partition, taken, done=True)
    event = NoticeMarked(
        **stamp(gateway),
        user=user,
        cmd=asked.cmd,
        mark=asked.as_,
        ids=asked.ids or (),
        up_to=up_to,
        until=until,
    )
    placed = await put(gateway, NOTICES, user, event)
    return Marked(placed.partition, placed.offset, done=False)


async def _taken(gateway: Gateway, user: str, cmd: str) -> int | None:
    inbox = gateway.inboxes.now(user)
    if inbox is not None:
        found = inbox.box.commands.get((user, cmd))
        return found[0] if found else None
    return await gateway.database.read(notices.mark_offset, user, cmd)


def _up_to(gateway: Gateway, token: str | None, partition: int) -> int | None:
    if token is None:
        return None
    _, position = gateway.live.understood(token, (NOTICES,))
    if partition not in position.next:
        raise Problem("bad_position", "`up_to` is a position of this user's inbox.")
    return position.next[partition]


def until_ms(text: str, now: int) -> int:
    """A time to come as people write it, in ms; `now` in ms. Problem `bad_field`."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise Problem("bad_field", "`until` is a time as in RFC 3339, for example 2030-01-31T08:00:00Z.") from error
    if at.tzinfo is None:
        raise Problem("bad_field", "`until` needs its offset from UTC, for example a Z at its end.")
    ms = int(at.timestamp() * 1000)
    if not now < ms < now + LATEST_MS:
        raise Problem("bad_field", "`until` lies in the past or more than a year ahead.")
    return ms
