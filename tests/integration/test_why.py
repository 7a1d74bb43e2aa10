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
from tests.integration.story_world import KEY, VALUE, Scene, by_test, lane, scene
from topics.catalogue import DELIVERIES, NOTICES
from topics.events import DeliveryRequested, DeliveryRetried, DeliverySent, NoticeEnded, NoticeMarked, Record
from topics.ids import new_id


@pytest.fixture
async def play(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Scene]:
    site = Site(kafka, namespace, tmp_path)
    await site.make()
    async with site.working(), scene(site) as made:
        yield made


async def why(play: Scene, folder: Path, *arguments: str) -> Any:
    return await asyncio.to_thread(tidings, folder, "why", *arguments, given=play.settings)


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
    done = await why(play, tmp_path, notice_id, "--json")
    assert done.returncode == 0, done.stderr
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
        "ann was told: in the inbox",
        "ann marked it as read",
        *over,
    ]
    assert told(stories["email:ops@example.test"]) == [
        *before,
        "email:ops@example.test was told: by email at once",
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
    text = (await why(play, tmp_path, notice_id, "--user", "ann")).stdout
    assert text.startswith("cpu of web-1 is 97%\n")
    assert "ann was told: in the inbox  notices[" in text
    unknown = await why(play, tmp_path, new_id())
    assert unknown.returncode == 1
    assert "there is no notice" in unknown.stderr


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
