"""Forwarding on a real broker: worker, sender and a mail server, policies with short times, and PostgreSQL's rows."""

import asyncio
import email
import email.policy
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import select

from projections.sql.schema import delivery_requests, delivery_results, recipients, silences, steps
from sender.service import run
from tests.integration.sender_world import SmtpServer, settings
from tests.integration.worker_site import Site, by_test, mark, raised, recipient
from tests.unit.projections.post import Post
from tests.unit.projections.test_digests import play
from topics.catalogue import COMMANDS, CONTROLS, NOTICES
from topics.events import Lane, NoticeEnded, NoticeRaised, PreferencesChanged, SilenceEnded, SilenceSet

DONE = delivery_results.c.outcome == "sent"


@pytest.fixture
async def mail() -> AsyncIterator[SmtpServer]:
    server = SmtpServer()
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path, mail: SmtpServer) -> AsyncIterator[Site]:
    """A worker and a sender run, and ann is a recipient."""
    async with Site(kafka, namespace, tmp_path).open() as made, made.working():
        stop = asyncio.Event()
        sender = asyncio.create_task(run(settings(mail), made.store, made.cluster, made.catalogue, stop))
        await made.say(COMMANDS, "ann", recipient("ann"))
        await made.until(select(recipients), lambda r: len(r) == 1)
        yield made
        stop.set()
        assert await asyncio.wait_for(sender, 30) == 0


def notice(forward: str = "", after_ms: int = 0, **more: Any) -> NoticeRaised:
    """A condition of the alert `cpu` for ann."""
    lanes = more.pop("lanes", (Lane("email", "email", "recipient", "ann", after_ms),))
    given: dict[str, Any] = {"kind": "condition", "alert": "cpu", "config_id": "c1", "forward": forward} | more
    return raised("ann", lanes=lanes, **given)


def subjects(mail: SmtpServer) -> list[str]:
    return [str(email.message_from_bytes(m, policy=email.policy.default)["subject"]) for m in mail.mails]


def state(name: str, what: str = "forward") -> Any:
    return select(steps.c.state, steps.c.reason).where(steps.c.notice_id == name, steps.c.what == what)


async def test_a_chain_is_stopped_by_a_read_in_between(site: Site, mail: SmtpServer) -> None:
    lanes = (Lane("email", "email", "recipient", "ann", 200), Lane("telegram", "telegram", "recipient", "ann", 600_000))
    one = notice(lanes=lanes)
    await site.say(NOTICES, "ann", one)
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 1)
    await site.say(NOTICES, "ann", mark("ann", one.notice_id, "read"))
    ends = await site.until(state(one.notice_id), lambda r: ("skipped", "read") in [tuple(x) for x in r])
    await site.settled()
    assert sorted(tuple(r) for r in ends) == [("delivered", "unread"), ("skipped", "read")]
    assert [r.channel for r in site.rows(select(delivery_requests.c.channel))] == ["email"]
    assert len(mail.mails) == 1


async def test_a_digest_of_five_is_one_mail(site: Site, mail: SmtpServer) -> None:
    several = [notice('{"digest":"2s"}', body=b'{"title":"disk %d is full"}' % i) for i in range(5)]
    await asyncio.gather(*(site.say(NOTICES, "ann", each) for each in several))  # of one moment
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 1)
    await site.settled()
    assert len(mail.mails) == 1
    assert "5" in subjects(mail)[0]
    text = email.message_from_bytes(mail.mails[0], policy=email.policy.default).get_body(("plain",))
    assert text is not None
    assert all(f"disk {i} is full" in text.get_content() for i in range(5))


async def test_a_throttle_lets_through_its_number_and_folds_the_rest(site: Site, mail: SmtpServer) -> None:
    several = [notice('{"throttle":{"max":2,"per":"4s"}}') for _ in range(20)]
    await asyncio.gather(*(site.say(NOTICES, "ann", each) for each in several))  # of one moment
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 3)
    await site.settled()
    assert len(mail.mails) == 3
    assert "18" in subjects(mail)[2]
    assert {tuple(r) for r in site.rows(select(steps.c.state).where(steps.c.what == "forward"))} == {("delivered",)}


async def test_nothing_is_mailed_in_quiet_hours_but_what_overrides_them(site: Site, mail: SmtpServer) -> None:
    zone = "Pacific/Auckland"
    now = datetime.now(UTC).astimezone(ZoneInfo(zone))
    quiet = f'{{"from":"{now - timedelta(hours=1):%H:%M}","to":"{now + timedelta(hours=2):%H:%M}"}}'
    wanted = f'{{"quiet":[{quiet}],"time_zone":"{zone}"}}'.encode()
    await site.say(NOTICES, "ann", PreferencesChanged(**by_test(), user="ann", cmd="c", body=wanted))
    forward = '{"override":["critical"]}'
    one, two = notice(forward), notice(forward, severity="critical")
    await site.say(NOTICES, "ann", one)
    await site.say(NOTICES, "ann", two)
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 1)
    waits = await site.until(
        select(steps.c.state, steps.c.reason, steps.c.due_at).where(steps.c.notice_id == one.notice_id),
        lambda r: bool(r and r[0].reason),
    )
    end = (now + timedelta(hours=2)).replace(second=0, microsecond=0).timestamp() * 1000
    assert [tuple(r) for r in waits] == [("waiting", "quiet_hours", end)]
    assert len(mail.mails) == 1


async def test_a_silence_mutes_until_it_is_ended(site: Site, mail: SmtpServer) -> None:
    until = int(datetime.now(UTC).timestamp() * 1000) + 3_600_000
    quiet = SilenceSet(
        **by_test(), silence_id="s", by="ops", alert="cpu", entity_type=None, entity_id=None, user=None, until=until,
        body=b"{}",
    )  # fmt: skip
    await site.say(CONTROLS, "s", quiet)
    await site.until(select(silences), lambda r: len(r) == 1)
    one, other = notice(), notice(alert="disk")
    await site.say(NOTICES, "ann", one)
    await site.say(NOTICES, "ann", other)
    await site.until(state(one.notice_id), lambda r: [tuple(x) for x in r] == [("skipped", "silenced")])
    await site.say(CONTROLS, "s", SilenceEnded(**by_test(), silence_id="s", by="ops"))
    await site.until(select(silences), lambda r: not r)
    await site.say(NOTICES, "ann", replace(one, event_id="again", notice_id="again"))
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 2)
    assert len(mail.mails) == 2


async def test_who_was_told_is_mailed_that_it_is_over(site: Site, mail: SmtpServer) -> None:
    one, late = notice('{"tell_resolved":true}'), notice('{"tell_resolved":true}', after_ms=60_000)
    for each in (one, late):
        await site.say(NOTICES, "ann", each)
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 1)
    for each in (one, late):
        await site.say(NOTICES, "ann", NoticeEnded(**by_test(), notice_id=each.notice_id, user="ann", body=b""))
    await site.until(select(delivery_results).where(DONE), lambda r: len(r) == 2)
    await site.settled()
    assert len(mail.mails) == 2
    assert "Resolved" in subjects(mail)[1]


@pytest.mark.parametrize("seed", [10, 11])
def test_postgresql_has_the_same_rows(seed: int, postgres: str, tmp_path: Path) -> None:
    rng = random.Random(seed)
    post = Post(f"sqlite:///{tmp_path}/t.db")
    play(post, rng)
    again = post.again(postgres, rng)
    assert again.dump() == post.rows.dump()
    again.store.close()
    post.rows.store.close()


def test_postgresql_decides_the_same(postgres: str, tmp_path: Path) -> None:
    posts = [Post(url) for url in (f"sqlite:///{tmp_path}/t.db", postgres)]
    for post in posts:
        play(post, random.Random(12))
    assert posts[0].rows.dump() == posts[1].rows.dump()
    assert [r.body for r in posts[0].requests] == [r.body for r in posts[1].requests]
    for post in posts:
        post.rows.store.close()
