"""History over HTTP and on the command line: pages of events, replays of what concerns something, past inboxes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from api.http import archive
from api.problems import Problem
from tests.integration.gateway_world import Site
from tests.integration.story_world import Scene, by_test, command, lane, scene
from topics.catalogue import NOTICES
from topics.events import EntityChanged, NoticeMarked, NoticeRaised
from topics.ids import new_id
from topics.read import HistoryReader

AUDITOR = ("audit",)


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


@pytest.fixture
async def play(site: Site) -> AsyncIterator[Scene]:
    async with site.working(), scene(site) as made:
        yield made


async def run(play: Scene, *arguments: str) -> str:
    done = await command(play, *arguments)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def as_time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


async def entities(play: Scene, count: int) -> None:
    for i in range(count):
        event = EntityChanged(**by_test(), entity_type="vm", entity_id=f"vm-{i % 7}", op="updated", body=b"{}")
        await play.say("entities.vm", event.entity_id, event)


async def test_pages_of_history_hold_every_event_once_in_the_order_of_its_time(play: Scene) -> None:
    await entities(play, 100)
    async with play.site.gateway() as door, door.http("boss", AUDITOR) as http:
        found: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": 30, "topic": ["entities.vm", "schemas"]}
        cursors = []
        while True:
            page = (await http.get("/v1/history", params=params)).json()
            found += page["items"]
            if page["next"] is None:
                break
            cursors.append(params := params | {"cursor": page["next"]})
            if len(cursors) == 2:  # what comes later comes on a later page, and on no other
                await entities(play, 5)
        places = [(f["topic"], f["partition"], f["offset"]) for f in found]
        assert len(set(places)) == len(places)
        assert sum(f["event"] == "EntityChanged" for f in found) == 105
        assert [f["at"] for f in found] == sorted(f["at"] for f in found)
        again = (await http.get("/v1/history", params=cursors[0])).json()["items"]
        assert again == found[30:60]
        lines = await http.get(
            "/v1/history", params={"topic": "entities.vm"}, headers={"accept": "application/x-ndjson"}
        )
        told = [json.loads(line) for line in lines.text.splitlines()]
        assert told[-1] == {"next": None}
        assert {(t["partition"], t["offset"]) for t in told[:-1]} == {
            (p, o) for t, p, o in places if t == "entities.vm"
        }
        half = found[len(found) // 2]["at"]
        since = (await http.get("/v1/history", params={"topic": "entities.vm", "since": half, "limit": 200})).json()
        until = (await http.get("/v1/history", params={"topic": "entities.vm", "until": half, "limit": 200})).json()
        assert min(i["at"] for i in since["items"]) >= half
        assert max(i["at"] for i in until["items"]) < half
        assert len(since["items"]) + len(until["items"]) == len(told) - 1


async def test_history_is_for_auditors_and_says_what_is_wrong(play: Scene) -> None:
    async with play.site.gateway() as door:
        async with door.http("ann") as http:
            assert (await http.get("/v1/history")).status_code == 403
            assert (await http.get("/v1/history", params={"user": "ann", "as_of": "2026-01-01"})).status_code == 403
        async with door.http("boss", AUDITOR) as http:
            for params, code in (
                ({"since": "yesterday"}, "bad_request"),
                ({"topic": "nothing"}, "bad_request"),
                ({"entity": "vm"}, "bad_request"),
                ({"as_of": "2026-01-01"}, "bad_request"),
                ({"as_of": "2026-01-01", "user": "ann", "since": "2026-01-01"}, "bad_request"),
                ({"cursor": "nonsense"}, "bad_cursor"),
                ({"limit": "0"}, "bad_request"),
            ):
                answer = await http.get("/v1/history", params=params)
                assert (answer.status_code, answer.json()["code"]) == (400, code), params


async def test_replay_shows_what_tells_of_one_user_or_one_entity(play: Scene) -> None:
    await play.config()
    await entities(play, 20)
    await play.change(97)
    await play.start()
    notice_id = await play.commit("raise", lane("inbox", "ann"), lane("inbox", "bob"))
    await play.log(NOTICES, lambda rs: sum(isinstance(r.event, NoticeRaised) for r in rs) == 2)
    by_entity = [json.loads(x) for x in (await run(play, "replay", "--entity", "vm/web-1", "--json")).splitlines()]
    assert [e["event"] for e in by_entity] == ["EntityChanged", "AlertCommitted", "NoticeRaised", "NoticeRaised"]
    by_both = await run(play, "replay", "--entity", "vm/web-1", "--user", "ann", "--json")
    assert [json.loads(x)["event"] for x in by_both.splitlines()] == ["AlertCommitted", "NoticeRaised"]
    async with play.site.gateway() as door, door.http("boss", AUDITOR) as http:
        page = (await http.get("/v1/history", params={"user": "bob"})).json()
        assert [i["event"] for i in page["items"]] == ["AlertCommitted", "NoticeRaised"]
        assert page["items"][1]["value"]["notice_id"] == notice_id


async def test_an_inbox_as_of_any_moment_is_what_it_was_then(play: Scene) -> None:
    await play.config()
    await play.change(97)
    await play.start()
    notice_id = await play.commit("raise", lane("inbox", "ann"), lane("email", "ann", 0))
    await play.log(NOTICES, lambda rs: any(type(r.event).__name__ == "Decided" for r in rs))
    read = NoticeMarked(**by_test(), user="ann", cmd=new_id(), mark="read", ids=(notice_id,), up_to=None, until=None)
    await play.say(NOTICES, "ann", read)
    log = [
        r
        for r in await play.log(NOTICES, lambda rs: any(isinstance(r.event, NoticeMarked) for r in rs))
        if r.key == "ann"
    ]
    raised, marked = log[0].timestamp, log[-1].timestamp

    async def at(ms: int, *more: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await run(play, "as-of", as_time(ms), "--user", "ann", "--json", *more))
        return found

    assert (await at(raised - 1))["items"] == []
    then = await at(raised)
    assert then["counts"] == {"unread": 1, "unseen": 1}
    assert [(f["channel"], f["outcome"]) for f in then["items"][0]["forwards"]] == [("email", "waiting")]
    now = await at(marked)
    assert now["counts"] == {"unread": 0, "unseen": 0}
    assert now["items"][0]["state"]["read_at"] is not None
    assert [(f["outcome"], f["reason"]) for f in now["items"][0]["forwards"]] == [("skipped", "no_address")]
    text = await run(play, "as-of", as_time(marked), "--user", "ann")
    assert "0 unread, 0 unseen" in text
    assert "forward by email" in text
    async with play.site.gateway() as door:
        async with door.http("boss", AUDITOR) as http:
            params = {"user": "ann", "as_of": as_time(raised)}
            page = (await http.get("/v1/history", params=params)).json()
            assert page["items"] == then["items"]
            assert page["next"] is None
        async with door.http("ann") as http:
            whole = (await http.get(f"/v1/notices/{notice_id}")).json()
            assert whole | {"position": 0} == now["items"][0] | {"position": 0}


async def test_who_follows_sees_what_comes_and_nothing_twice(play: Scene) -> None:
    await entities(play, 10)
    reader = HistoryReader(play.site.cluster, play.site.catalogue)
    await reader.start()
    try:
        following = reader.merged(reader.spots(["entities.vm"]), follow=True)
        seen = []
        async with asyncio.timeout(30):
            async for at, _ in following:
                seen.append((at.partition, at.offset))
                if len(seen) == 12:  # each partition began with its TopicOpened
                    await entities(play, 3)
                if len(seen) == 15:
                    break
        assert len(set(seen)) == 15
    finally:
        await reader.stop()


async def test_history_is_read_by_few_at_a_time_and_not_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "TURN_S", 0.05)
    shelf = archive.Archive(site.cluster, site.catalogue)
    async with shelf.reading(), shelf.reading():
        with pytest.raises(Problem, match="busy"):
            async with shelf.reading():
                pass

    async def without_end() -> None:
        async with shelf.reading(0.5) as reader:
            async for _ in reader.merged(reader.spots(["notices"]), follow=True):
                pass

    with pytest.raises(Problem, match="takes_too_long"):
        await without_end()
    async with shelf.reading() as reader:
        assert [m async for m in reader.merged(reader.spots(["notices"]))]
