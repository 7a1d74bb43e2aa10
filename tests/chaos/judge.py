"""The judge of a run: reads the log, the rows and the mail server's book when all is quiet, and says what was broken.

It shares no code with what it judges but the events.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sqlalchemy import select

from projections.sql.schema import notices
from tests.chaos.site import Post, Site
from topics.catalogue import DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.events import (
    AlertCommitted,
    Decided,
    DeliveryRequested,
    DeliverySent,
    Due,
    NoticeMarked,
    NoticeRaised,
    Record,
)

Key = tuple[str, str]  # a notice and its user
ACCEPTED_LATE_S = 0.5  # a killed sender's last words may still lie in a socket when the server accepts them


@dataclass(frozen=True, slots=True)
class Said:
    """What was put in: notices by (id, user); the announcements go to people without addresses; the alert's titles."""

    direct: frozenset[Key]
    announced: frozenset[Key]
    read: frozenset[Key]
    titles: frozenset[str]
    inbox_user: str  # of the alert's notices: this one sees them
    mail_user: str  # and this one gets them by mail too
    forward_after: int


async def judge(site: Site, post: Post, said: Said) -> str:
    """Every rule that the chaos may have broken; what was seen, in one line."""
    boxes, requests, deliveries = [await site.log(topic) for topic in (NOTICES, NOTICE_REQUESTS, DELIVERIES)]
    raised = _stored_once(site, boxes, said)
    delivered = _decided_once(boxes)
    _by_the_log(boxes, raised, delivered, said)
    twice = _mailed_once(site, post, deliveries, delivered, said)
    counts = {name: len(role.kills) for name, role in site.roles.items()}
    ids = Counter(r.event.event_id for r in boxes + requests + deliveries if r.event and not isinstance(r.event, Due))
    commits = sum(isinstance(r.event, AlertCommitted) for r in requests)
    return (
        f"{sum(counts.values())} kills {counts}; {len(raised)} notices stored; {len(delivered)} forwarded, "
        f"{len(delivered & said.read)} of them read too late; {commits} commits; "
        f"{sum(ids.values()) - len(ids)} records repeated on the log; {twice} mails taken twice"
    )


def _stored_once(site: Site, boxes: list[Record], said: Said) -> dict[Key, Record]:
    """None lost, none twice in the store; its first NoticeRaised by notice."""
    stored = Counter((r.notice_id, r.user_id) for r in site.rows(select(notices.c.notice_id, notices.c.user_id)))
    assert max(stored.values()) == 1
    assert said.direct | said.announced <= stored.keys(), "a direct notice is lost"
    by_alert = site.rows(select(notices.c.user_id, notices.c.body).where(notices.c.alert == "each"))
    for user in (said.inbox_user, said.mail_user):
        titles = Counter(json.loads(r.body)["title"] for r in by_alert if r.user_id == user)
        assert titles == Counter(said.titles), f"an alert's notice for {user} is lost or doubled"
    assert len(stored) == len(said.direct | said.announced) + 2 * len(said.titles), "a notice that nobody sent"
    first: dict[Key, Record] = {}
    for record in boxes:
        if isinstance(record.event, NoticeRaised):
            before = first.setdefault((record.event.notice_id, record.event.user), record)
            assert before.event
            assert before.event.event_id == record.event.event_id, "raised by two events"
    assert first.keys() == stored.keys(), "the rows are not the log"
    return first


def _decided_once(boxes: Iterable[Record]) -> set[Key]:
    """One decision for each question, and no second opinion in a repeat; what is to be delivered."""
    answers: defaultdict[tuple[str, str, str], set[tuple[Any, ...]]] = defaultdict(set)
    for event in (r.event for r in boxes if isinstance(r.event, Decided)):
        answers[event.notice_id, event.user, event.step].add((event.number, event.event_id, event.answer))
    assert all(len(found) == 1 for found in answers.values()), "two decisions for one notice, user and channel"
    return {(n, u) for (n, u, _), found in answers.items() for _, _, answer in found if answer == "deliver"}


def _by_the_log(boxes: list[Record], raised: dict[Key, Record], delivered: set[Key], said: Said) -> None:
    """Read before the Due that delivers: never forwarded; read after it, or never: forwarded."""
    marked: dict[Key, int] = {}
    dues: dict[Key, int] = {}
    for record in boxes:  # of one user all is on one partition, in order
        event = record.event
        if isinstance(event, NoticeMarked):
            for notice in event.ids:
                marked.setdefault((notice, event.user), record.offset)
        elif isinstance(event, Due) and record.timestamp >= event.due_at:
            key = (event.notice_id, event.user)
            assert event.due_at == raised[key].timestamp + said.forward_after * 1000
            dues.setdefault(key, record.offset)
    assert marked.keys() == said.read
    for key, offset in marked.items():
        assert (key in delivered) == (dues.get(key, offset) < offset), "read and forwarded do not follow the log"
    unread = {k for k in raised if k not in said.read and (k in said.direct or k[1] == said.mail_user)}
    assert unread <= delivered, "not forwarded that should have been"
    assert delivered <= unread | said.read, "forwarded that should not have been"


def _mailed_once(site: Site, post: Post, deliveries: list[Record], delivered: Collection[Key], said: Said) -> int:
    """One mail for each decision; how many were taken twice, which only a kill of the sender excuses."""
    asked: dict[str, DeliveryRequested] = {}
    for event in (r.event for r in deliveries if isinstance(r.event, DeliveryRequested)):
        asked.setdefault(event.delivery_id, event)
    assert sorted((e.notice_id, e.user) for e in asked.values()) == sorted(delivered)
    sent_at: dict[str, int] = {}
    for record in deliveries:
        if isinstance(record.event, DeliverySent):
            sent_at.setdefault(asked[record.event.delivery_id].message_id, record.timestamp)
    user_of = {e.message_id: e.user for e in asked.values()}
    assert len(user_of) == len(asked), "one Message-ID for two deliveries"
    assert post.taken.keys() <= user_of.keys(), "a mail that nobody asked for"
    assert all(post.to[m] == f"{user_of[m]}@example.test" for m in post.taken), "a mail to somebody else"
    assert sent_at.keys() <= post.taken.keys(), "said to be sent, and never taken"
    due = {e.message_id for e in asked.values() if (e.notice_id, e.user) not in said.read}
    assert due <= sent_at.keys(), "an unread notice without its mail"
    twice = {m: at for m, at in post.taken.items() if len(at) > 1}
    for message, at in twice.items():
        assert sent_at[message] >= int(at[-1] * 1000), "sent again although the log said that it was sent"
        for one, next_one in pairwise(at):
            between = any(one - ACCEPTED_LATE_S <= k <= next_one for k in site.roles["sender"].kills)
            assert between, f"{message} taken at {at}, without a kill of the sender in between"
    return len(twice)
