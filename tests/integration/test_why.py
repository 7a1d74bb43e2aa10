"""Why somebody was told, from the log alone: on the command line and over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.command_line import tidings
from tests.integration.gateway_world import Site
from tests.integration.story_world import ALERT, KEY, VALUE, Scene, by_test, command, lane, scene
from topics.catalogue import DEAD_LETTERS, DELIVERIES, NOTICES
from topics.events import (
    Decided,
    DeliveryRequested,
    DeliveryRetried,
    DeliverySent,
    NoticeEnded,
    NoticeMarked,
    NoticeRaised,
    Record,
)
from topics.ids import new_id


@pytest.fixture
async def play(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    site = Site(kafka, namespace, tmp_path)
    await site.make()
    async with site.working(), scene(site) as made:
        yield made


async def requested(play: Scene, count: int = 1) -> list[Record]:
    found = await play.log(
        DELIVERIES, lambda rs: len([r for r in rs if isinstance(r.event, DeliveryRequested)]) >= count
    )
    return [r for r in found if isinstance(r.event, DeliveryRequested)]


async def a_told_story(play: Scene) -> str:
    """Ann has it in the inbox, a raw address by e-mail at once; the second attempt reaches it; ann reads; it ends."""
    await play.config()
    await play.change(97)
    await play.start()
    notice_id = await play.commit("raise", lane("inbox", "ann"), lane("email", "ops@example.test", 0, "address"))
    (asked,) = await requested(play)
    e = asked.event
    assert isinstance(e, DeliveryRequested)
    common: dict[str, Any] = {"delivery_id": e.delivery_id, "user": e.user, "notice_id": notice_id}
    later = DeliveryRetried(**by_test(), **common, attempt=1, next_at=1_800_000_000_000, body=b'{"answer":"421 busy"}')
    await play.say(DELIVERIES, e.user, later)
    await play.say(DELIVERIES, e.user, DeliverySent(**by_test(), **common, attempt=2, body=b'{"answer":"250 Ok"}'))
    read = NoticeMarked(**by_test(), user="ann", cmd=new_id(), mark="read", ids=(notice_id,), up_to=None, until=None)
    for _ in range(2):  # the second one changes nothing, and is no part of the story
        await play.say(NOTICES, "ann", read)
    await play.change(12)
    await play.commit("resolve", notice_id=notice_id)
    await play.log(NOTICES, lambda rs: sum(isinstance(r.event, NoticeEnded) for r in rs) == 2)
    return notice_id


def told(story: dict[str, Any]) -> list[str]:
    return [m["told"] for m in story["moments"]]


async def test_the_whole_story_of_a_notice_is_told_in_the_order_of_the_log(play: Scene, tmp_path: Path) -> None:
    notice_id = await a_told_story(play)
    done = await command(play, "why", notice_id, "--json")
    assert done.exit_code == 0, done.stderr
    stories = {s["user"]: s for s in json.loads(done.stdout)}
    assert set(stories) == {"ann", "email:ops@example.test"}
    before = [
        "config c1 of alert overuse was set: version 3",
        "vm web-1 was updated: version 17",
        f"run {play.run} of alert overuse began",
        f"alert overuse raised {KEY}: commit 1 of its run {play.run}",
    ]
    over = [
        "vm web-1 was updated: version 17",
        f"alert overuse resolved {KEY}: commit 2 of its run {play.run}",
        "the condition was over",
    ]
    assert told(stories["ann"]) == [
        *before,
        "told ann: in the inbox",
        "ann marked it as read",
        *over,
    ]
    assert told(stories["email:ops@example.test"]) == [
        *before,
        "told email:ops@example.test: by email at once",
        "email: due",
        "email: to be sent (it was unread)",
        "a message by email to ops@example.test was asked for",
        "attempt 1 failed: 421 busy; the next not before 2027-01-15 08:00:00 UTC",
        "sent with attempt 2: 250 Ok",
        *over,
    ]
    assert [m["at"] for m in stories["ann"]["moments"]] == sorted(m["at"] for m in stories["ann"]["moments"])
    said = stories["ann"]["moments"][3]["details"]
    assert (said["config"]["version"], said["config"]["value"]) == (3, VALUE)
    assert said["config"]["event_id"] == play.causes[0].event_id
    assert (said["entity"]["version"], said["entity"]["value"]) == (17, {"cpu": 97})
    assert [r["user"] for r in said["receivers"]] == ["ann", "email:ops@example.test"]
    text = (await command(play, "why", notice_id, "--user", "ann")).stdout
    assert text.startswith("cpu of web-1 is 97%\n")
    assert "told ann: in the inbox  notices[" in text
    unknown = await asyncio.to_thread(tidings, tmp_path, "why", "no-such", given=play.settings)
    assert (unknown.returncode, unknown.stderr) == (1, "tidings: there is no notice no-such on this log\n")


async def test_the_gateway_tells_a_user_the_own_story_and_an_auditor_everybodys(play: Scene) -> None:
    notice_id = await a_told_story(play)
    async with play.site.gateway() as door:
        path = f"/v1/notices/{notice_id}/why"
        async with door.http("ann", ()) as http:
            own = (await http.get(path)).json()
            assert "ops@example.test" not in json.dumps(own)
            said = own["moments"][3]["details"]
            assert (said["others"], [r["user"] for r in said["receivers"]]) == (1, ["ann"])
            assert "value" not in said["entity"]  # this token may not read entities
            assert "channel" not in said["config"]["value"]
            assert (await http.get(path, params={"user": "email:ops@example.test"})).status_code == 403
            assert (await http.get(f"/v1/notices/{new_id()}/why")).status_code == 404
        async with door.http("ann", ("entities:read:vm",)) as http:
            assert (await http.get(path)).json()["moments"][3]["details"]["entity"]["value"] == {"cpu": 97}
        filters = {"vm": {"key": "cpu", "op": "lt", "val": 50}}
        async with door.http("ann", ("entities:read:vm",), filters=filters) as http:
            seen = [m["details"].get("entity", {}).get("value") for m in (await http.get(path)).json()["moments"]]
            assert {"cpu": 12} in seen
            assert {"cpu": 97} not in seen
        async with door.http("bob") as http:
            assert (await http.get(path)).status_code == 404
        async with door.http("boss", ("audit",)) as http:
            other = (await http.get(path, params={"user": "email:ops@example.test"})).json()
            assert "sent with attempt 2: 250 Ok" in told(other)
            assert (await http.get(path)).status_code == 404


async def asked_for(play: Scene, user: str, request: str, *more: str) -> dict[str, Any]:
    done = await command(play, "why", "--user", user, "--request", request, "--json", *more)
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def test_why_somebody_was_not_told_is_told_too(play: Scene) -> None:
    await play.config()
    change = await play.change(97)
    await play.start()
    old = play.run
    first = await play.commit("raise", lane("inbox", "ann"))
    again = await play.commit("raise", lane("inbox", "ann"), lane("inbox", "bob"))
    play.number += 1
    gap = await play.commit("raise", lane("inbox", "bob"))
    await play.start()
    play.number = 8
    zombie = await play.commit("raise", lane("inbox", "bob"), run=old)
    await play.log(DEAD_LETTERS, lambda rs: len(rs) == 2)  # the first one opened the topic

    not_told = await asked_for(play, "bob", first)
    assert [v["code"] for v in not_told["verdicts"]] == ["not_in_audience"]
    assert not_told["verdicts"][0]["told"] == f"alert overuse raised {KEY}, but to ann only"
    (open_already,) = (await asked_for(play, "bob", again))["verdicts"]
    assert open_already["code"] == "open_already"
    assert "a notice that bob did not get" in open_already["told"]
    broken = await asked_for(play, "bob", gap)
    assert broken["verdicts"][0]["code"] == "refused"
    (reason,) = broken["dead_letters"].values()
    assert "the chain is broken until the next start" in reason
    assert (await asked_for(play, "bob", zombie))["verdicts"][0]["code"] == "zombie"

    place = f"entities.vm[{play.causes[1].partition}]@{play.causes[1].offset}"
    by_change = await asked_for(play, "ann", place)
    assert by_change["about"]["event"] == "EntityChanged"
    assert {v["code"] for v in by_change["verdicts"]} == {"told", "open_already", "refused", "zombie"}
    assert [s["outcomes"] for s in by_change["stories"]] == [{}]
    assert (await asked_for(play, "ann", change.event_id))["verdicts"] == by_change["verdicts"]
    text = await command(play, "why", "--user", "ann", "--request", place)
    assert "nothing was to be forwarded: ann is named for the inbox only" in text.stdout
    nothing = await command(play, "why", "--user", "ann", "--request", "no such thing")
    assert nothing.exit_code == 1
    assert "nothing on this log is called no such thing" in nothing.stderr


async def test_a_direct_request_is_asked_for_by_its_key_and_its_sender(play: Scene) -> None:
    async with play.site.gateway() as door, door.http("billing") as http:
        given = {"to": ["ann"], "title": "hello"}
        await http.post("/v1/notices", json=given, headers={"idempotency-key": "r-1"})
        condition = given | {"key": "k"}
        await http.post("/v1/notices", json=condition, headers={"idempotency-key": "r-2"})
        await http.put("/v1/preferences", json={})
    await play.log(NOTICES, lambda rs: sum(isinstance(r.event, NoticeRaised) for r in rs) == 2)
    straight = await asked_for(play, "ann", "r-1", "--subject", "billing")
    assert [s["title"] for s in straight["stories"]] == ["hello"]
    other = await asked_for(play, "bob", straight["stories"][0]["id"])
    assert (other["sent_straight_to"], other["stories"]) == (["ann"], [])
    by_key = await asked_for(play, "bob", "r-2")
    assert [v["code"] for v in by_key["verdicts"]] == ["not_in_audience"]
    told_too = await asked_for(play, "ann", "r-2")
    assert told(told_too["stories"][0])[:2] == [
        "billing asked for a notice to 1 receiver, condition k",
        "told ann: in the inbox",
    ]


async def test_what_no_worker_has_folded_yet_is_said_to_be_so(kafka: str, namespace: str, tmp_path: Path) -> None:
    site = Site(kafka, namespace, tmp_path)
    await site.make()
    async with scene(site) as play:
        await play.start()
        notice_id = await play.commit("raise", lane("inbox", "ann"))
        found = await asked_for(play, "ann", notice_id)
    assert [v["code"] for v in found["verdicts"]] == ["told"]
    assert (found["not_folded_yet"], found["stories"]) == ([notice_id], [])


async def test_a_commit_in_two_parts_and_a_digest_are_told_as_they_were(play: Scene) -> None:
    await play.config()
    await play.change(97)
    await play.start()
    to, policy = lane("email", "ops@example.test", 0, "address"), '{"digest":"1s"}'
    notice_id = await play.commit("raise", to, forward=policy, more=True)
    await play.commit("raise", to, forward=policy, key="another")
    await requested(play)
    user = "email:ops@example.test"
    (story,) = json.loads((await command(play, "why", notice_id, "--user", user, "--json")).stdout)
    lines = told(story)
    assert lines[3:5] == [
        f"alert overuse raised {KEY}: commit 1 of its run {play.run}",
        f"the last part of commit 2 of alert overuse, run {play.run}",
    ]
    assert lines[5:7] == ["told email:ops@example.test: by email at once", "email: due"]
    assert lines[7].startswith("email: not before 20")
    assert lines[7].endswith("(collected with others)")
    assert lines[8] == "the digest by email: due"
    assert lines[9].startswith("the digest by email: to be sent")
    assert lines[10] == "a message by email to ops@example.test was asked for"
    assert story["moments"][10]["details"]["count"] == 2
    assert (story["outcomes"], story["waits"]) == ({"email": "on its way"}, [])
    digest = story["moments"][9]["details"]["digest"]
    (of_digest,) = json.loads((await command(play, "why", digest, "--json")).stdout)
    assert told(of_digest) == lines[8:]
    async with play.site.gateway() as door, door.http("boss", ("audit",)) as http:
        answer = await http.get(f"/v1/notices/{digest}/why", params={"user": user})
        assert told(answer.json()) == lines[8:]


async def test_who_has_it_in_the_inbox_only_learns_why(play: Scene) -> None:
    async with play.site.gateway() as door, door.http("ann") as http:
        made = await http.put("/v1/recipients/ann", json={"name": "Ann", "addresses": {"email": "ann@example.test"}})
        assert made.status_code == 201
        wanted = {"alerts": {ALERT: {"email": False}}}
        assert (await http.put("/v1/preferences", json=wanted)).status_code == 200
        await play.config()
        await play.change(97)
        await play.start()
        notice_id = await play.commit("raise", lane("email", "ann"))
        await play.log(NOTICES, lambda rs: any(isinstance(r.event, Decided) for r in rs))
        own = (await http.get(f"/v1/notices/{notice_id}/why")).json()
    (story,) = (await asked_for(play, "ann", notice_id))["stories"]
    assert story["outcomes"] == own["outcomes"] == {"email": "not sent: its receiver does not want it there"}
    assert story["moments"][-1]["details"]["looked_at"]["preferences"] == wanted
    text = (await command(play, "why", "--user", "ann", "--request", notice_id)).stdout
    assert "by email: not sent: its receiver does not want it there" in text
    assert 'looked at preferences: {"alerts": {"overuse": {"email": false}}}' in text
