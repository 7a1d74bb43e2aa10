"""The gateway with a real worker: direct notices, live inboxes, marks, resumes, configs, recipients, preferences."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Limits
from tests.integration.gateway_world import Site, Stream
from topics.catalogue import ALERT_REPORTS
from topics.events import AlertReported
from topics.ids import new_id
from topics.produce import Producer, now_us


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    async with made.working():
        yield made


async def send(http: httpx.AsyncClient, **notice: Any) -> dict[str, Any]:
    answer = await http.post("/v1/notices", json={"to": ["u1"], "title": "hello", **notice})
    assert answer.status_code == 202, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_direct_notice_is_pushed_read_and_counted_on_every_device(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as one, door.socket() as two:
        first = await one.ask(subscribe={"channel": "inbox"})
        assert first["snapshot"] == []
        assert first["counts"] == {"unread": 0, "unseen": 0}
        assert first["next"] is None
        await two.ask(subscribe={"channel": "inbox"})
        sent = await send(
            http, text="body", severity="warning", data={"a": 1.10}, link="/x", entity={"type": "vm", "id": "1"}
        )
        pushed = await one.push()
        notice = pushed["event"]["notice"]
        assert pushed["event"]["op"] == "raised"
        assert pushed["counts"] == {"unread": 1, "unseen": 1}
        assert notice["id"] == sent["ids"]["u1"]
        assert notice["entity"] == {"type": "vm", "id": "1"}
        assert notice["state"] == {"seen_at": None, "read_at": None, "archived_at": None, "snoozed_until": None}
        assert await two.push() == pushed
        cmd = str(uuid.uuid4())
        done = await two.ask(mark={"cmd": cmd, "ids": [notice["id"]], "as": "read"})
        assert done["cmd"] == cmd
        assert done["position"]
        assert "done" not in done
        for device in (one, two):
            event = await device.push()
            assert (event["event"]["op"], event["event"]["ids"], event["event"]["cause"]) == (
                "read",
                [notice["id"]],
                cmd,
            )
            assert event["counts"] == {"unread": 0, "unseen": 0}
        again = await one.ask(mark={"cmd": cmd, "ids": [notice["id"]], "as": "read"})
        assert again["done"] is True
        assert again["position"] == done["position"]
        read = (await http.get(f"/v1/notices/{notice['id']}", params={"at_least": done["position"]})).json()
        assert read["state"]["read_at"] is not None
        assert read["text"] == "body"


async def test_an_idempotency_key_counts_once(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as client:
        await client.ask(subscribe={"channel": "inbox"})
        body = {"to": ["u1"], "title": "once"}
        answers = [
            (await http.post("/v1/notices", json=body, headers={"idempotency-key": "k"})).json() for _ in range(3)
        ]
        assert len({a["ids"]["u1"] for a in answers}) == 1
        listed = (await http.get("/v1/notices", params={"at_least": answers[-1]["position"]})).json()
        assert [n["title"] for n in listed["items"]] == ["once"]
        assert listed["counts"]["unread"] == 1
        assert (await client.push())["event"]["op"] == "raised"
        batch = await http.post("/v1/notices", json=[{"to": ["u1"], "title": "a"}, {"to": []}])
        assert (batch.json()["accepted"], batch.json()["refused"]) == (1, 1)


async def test_a_mark_of_all_spares_what_came_later_and_resume_tells_what_changed(site: Site) -> None:
    async with site.gateway() as door, door.http() as http:
        async with door.socket() as client:
            start = await client.ask(subscribe={"channel": "inbox"})
            for i in range(5):
                await send(http, title=f"n{i}")
            frames = [await client.push() for _ in range(5)]
        async with door.socket() as client:
            await client.ask(mark={"cmd": "all", "all": True, "up_to": frames[2]["position"], "as": "read"})
            back = await client.ask(subscribe={"channel": "inbox", "since": frames[4]["position"]})
            if back["counts"]["unread"] != 2:  # the answer was quicker than the log
                assert (await client.push())["counts"]["unread"] == 2
            full = await client.ask(unsubscribe={"channel": "inbox"})
            assert full == {"channel": "inbox"}
            changed = await client.ask(subscribe={"channel": "inbox", "since": frames[4]["position"]})
            assert changed["resumed"] is True
            assert changed["counts"] == {"unread": 2, "unseen": 2}
            assert sorted(n["title"] for n in changed["snapshot"]) == ["n0", "n1", "n2"]
            assert all(n["state"]["read_at"] for n in changed["snapshot"])
            await client.ask(unsubscribe={"channel": "inbox"})
            everything = await client.ask(subscribe={"channel": "inbox", "since": start["position"]})
            assert sorted(n["title"] for n in everything["snapshot"]) == [f"n{i}" for i in range(5)]


async def test_pages_states_and_search(site: Site) -> None:
    async with site.gateway(limits=Limits(inbox_page=5)) as door, door.http() as http:
        last = ""
        for i in range(12):
            last = (await send(http, title=f"disk {i}" if i % 2 else f"net {i}"))["position"]
        await http.get("/v1/notices/counts", params={"at_least": last})
        async with door.socket() as client:
            first = await client.ask(subscribe={"channel": "inbox"})
            assert [n["title"] for n in first["snapshot"]] == ["disk 11", "net 10", "disk 9", "net 8", "disk 7"]
            older = (await http.get("/v1/notices", params={"cursor": first["next"], "limit": 3})).json()
            assert [n["title"] for n in older["items"]] == ["net 6", "disk 5", "net 4"]
            assert older["next"]
        found = (await http.get("/v1/notices", params={"q": "DISK", "limit": 50})).json()
        assert len(found["items"]) == 6
        assert found["next"] is None
        ids = [n["id"] for n in found["items"][:2]]
        archived = await http.post("/v1/notices/mark", json={"ids": ids, "as": "archived"})
        assert archived.status_code == 200
        params = {"at_least": archived.json()["position"]}
        assert len((await http.get("/v1/notices", params=params | {"state": "archived"})).json()["items"]) == 2
        assert (await http.get("/v1/notices/counts", params=params)).json()["unread"] == 10
        assert (await http.get("/v1/notices", params={"state": "lost"})).json()["code"] == "bad_request"
        async with door.http("u2") as other:
            assert (await other.get(f"/v1/notices/{ids[0]}")).status_code == 404


async def test_the_configurator_decides_in_log_order_and_keeps_the_metric(site: Site) -> None:
    metric = '{"high": 1.10, "high2":1e400,"a":1,"a":2}'
    body = (
        '{"name":"overuse","metric":<metric>,"channel":{"inbox":["u1"],"email":["u1","x@example.test"]},"owner":"me"}'
    ).replace("<metric>", metric)
    async with site.gateway() as door, door.http() as http:
        made = await http.put("/v1/recipients/u1", json={"name": "Ann", "addresses": {"email": "ann@example.test"}})
        assert made.status_code == 201
        assert made.headers["etag"] == '"v1"'
        made = await http.post("/v1/alert-configs", content=body)
        assert made.status_code == 201, made.text
        path = f"/v1/alert-configs/{made.json()['id']}"
        got = await http.get(path)
        assert '"metric":{"high":1.10,"high2":1e400,"a":1,"a":2}' in got.text
        assert got.headers["etag"] == '"v1"'
        changed = await http.patch(path, json={"owner": None, "enabled": False}, headers={"if-match": '"v1"'})
        assert changed.status_code == 200
        assert changed.json()["etag"] == '"v2"'
        assert '"metric":{"high":1.10,"high2":1e400,"a":1,"a":2}' in (await http.get(path)).text
        stale = await http.put(path, content=body, headers={"if-match": '"v1"'})
        assert stale.status_code == 412
        assert stale.headers["etag"] == '"v2"'
        assert stale.json()["code"] == "version_conflict"
        both = await asyncio.gather(
            *(http.put(path, content=body, headers={"if-match": '"v2"'}) for _ in range(2)),
        )
        assert sorted(a.status_code for a in both) == [200, 412]
        taken = await http.post("/v1/alert-configs", content=body.replace("{", f'{{"id":"{made.json()["id"]}",', 1))
        assert taken.status_code == 409
        listed = (await http.get("/v1/alert-configs", params={"name": "overuse"})).json()
        assert [c["id"] for c in listed["items"]] == [made.json()["id"]]
        assert listed["items"][0]["etag"] == '"v3"'
        assert (await http.get("/v1/alert-configs", params={"name": "other"})).json()["items"] == []
        absent = await http.put(path, content=body, headers={"if-none-match": "*"})
        assert absent.status_code == 412
        near = await http.post("/v1/alert-configs", json={"name": "x", "channel": {"inbox": ["u11"]}})
        assert near.json()["nearest"] == "u1"
        assert (await http.delete(path)).status_code == 200
        assert (await http.get(path)).status_code == 404
        assert (await http.delete(path)).status_code == 404
        assert (await http.patch(path, json={})).status_code == 404
        assert (await http.get("/v1/recipients")).json()["items"][0]["name"] == "Ann"


async def test_what_an_alert_says_of_a_config_stands_beside_it_until_it_is_changed(site: Site) -> None:
    producer = Producer(site.cluster, site.catalogue, "test")
    await producer.start()
    async with site.gateway() as door, door.http() as http:
        await http.put("/v1/recipients/u1", json={})
        made = (
            await http.post("/v1/alert-configs", json={"name": "x", "metric": {}, "channel": {"inbox": ["u1"]}})
        ).json()
        path = f"/v1/alert-configs/{made['id']}"
        told = AlertReported(
            event_id=new_id(),
            producer="test",
            occurred_at=now_us(),
            alert="x",
            shard=0,
            kind="error",
            config_id=made["id"],
            body=b'{"text":"metric.high is missing"}',
        )
        await producer.send(ALERT_REPORTS, "x/0", told)
        async with asyncio.timeout(20):
            while "reports" not in (found := (await http.get(path)).json()):  # noqa: ASYNC110 - nobody signals it
                await asyncio.sleep(0.02)
        assert [(r["kind"], r["text"]) for r in found["reports"]] == [("error", "metric.high is missing")]
        assert (await http.patch(path, json={"metric": {"high": 1}})).status_code == 200
        assert "reports" not in (await http.get(path)).json()
    await producer.stop()


async def test_preferences_are_kept_and_a_default_notice_goes_where_its_reader_can_be_reached(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as client:
        await http.put("/v1/recipients/u1", json={"addresses": {"email": "ann@example.test"}})
        wanted = {"channels": {"email": {"after": "10m"}}, "quiet": [{"from": "22:00", "to": "07:00"}]}
        put = await http.put("/v1/preferences", json=wanted)
        assert put.status_code == 200, put.text
        got = (await http.get("/v1/preferences", params={"at_least": put.json()["position"]})).json()
        assert {k: v for k, v in got.items() if k != "position"} == wanted
        assert (await http.put("/v1/preferences", json={"quiet": [{"from": "25:00", "to": "1"}]})).status_code == 422
        await client.ask(subscribe={"channel": "inbox"})
        await send(http, key="disk", forward_after=3600)
        forwards = (await client.push())["event"]["notice"]["forwards"]
        assert [(f["channel"], f["outcome"]) for f in forwards] == [("email", "waiting")]
        await http.post("/v1/notices/resolve", json={"key": "disk"})
        ended = await client.push()
        assert ended["event"]["op"] == "ended"
        assert len(ended["event"]["ids"]) == 1


async def test_postgresql_answers_as_sqlite_does(kafka: str, namespace: str, tmp_path: Path, postgres: str) -> None:
    site = Site(kafka, namespace, tmp_path, postgres)
    await site.make()
    async with site.working(), site.gateway() as door, door.http() as http, door.socket() as client:
        assert (await http.put("/v1/recipients/u1", json={"name": "Ann"})).status_code == 201
        made = await http.post("/v1/alert-configs", json={"name": "x", "metric": 1, "channel": {"inbox": ["u1"]}})
        assert made.status_code == 201
        assert (await http.get("/v1/alert-configs", params={"name": "x"})).json()["items"][0]["version"] == 1
        await client.ask(subscribe={"channel": "inbox"})
        sent = await send(http, title="50% Größe")
        assert (await client.push())["counts"] == {"unread": 1, "unseen": 1}
        query = {"q": "50% GRÖ".lower(), "at_least": sent["position"]}
        found = (await http.get("/v1/notices", params=query)).json()
        assert [n["id"] for n in found["items"]] == [sent["ids"]["u1"]]
        marked = await http.post("/v1/notices/mark", json={"ids": [sent["ids"]["u1"]], "as": "read"})
        assert marked.status_code == 200
        assert (await http.get("/v1/notices/counts")).json()["unread"] == 0


async def test_a_snooze_returns_and_says_so(site: Site) -> None:
    async with site.gateway() as door, door.http() as http, door.socket() as client:
        await client.ask(subscribe={"channel": "inbox"})
        await send(http)
        notice = (await client.push())["event"]["notice"]
        past = await client.ask(
            mark={"cmd": "s0", "ids": [notice["id"]], "as": "snoozed", "until": "2001-01-01T00:00:00Z"}
        )
        assert past["error"]["code"] == "bad_field"
        until = (datetime.now(UTC) + timedelta(seconds=1)).isoformat()
        await client.ask(mark={"cmd": "s1", "ids": [notice["id"]], "as": "snoozed", "until": until})
        snoozed = await client.push()
        assert snoozed["event"]["op"] == "snoozed"
        assert snoozed["event"]["until"]
        assert snoozed["counts"]["unread"] == 0
        returned = await client.push()
        assert (returned["event"]["op"], returned["event"]["ids"]) == ("returned", [notice["id"]])
        assert returned["counts"] == {"unread": 1, "unseen": 1}


async def test_a_live_inbox_equals_the_rows_after_random_marks_on_two_gateways(site: Site) -> None:
    dice = random.Random(7)
    async with site.gateway() as door, site.gateway() as other, door.http() as http:
        view: dict[str, Any] = {}
        position: str | None = None
        ids: list[str] = []
        written: list[str] = []
        for visit in range(8):
            where = dice.choice((door, other))
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(where.socket())
                since = {"since": position} if position is not None else {}
                stream: Stream | None = None
                if visit % 2:
                    stream = await stack.enter_async_context(where.stream("inbox", position))
                    answer = (await stream.next()).frame["ok"]
                else:
                    answer = await client.ask(subscribe={"channel": "inbox", **since})
                view |= {n["id"]: n for n in answer["snapshot"]}
                assert answer["counts"] == counted(view)
                position, expected = answer["position"], dice.randrange(1, 6)
                for _ in range(expected):
                    if not ids or dice.random() < 0.5:
                        sent = await send(http, title=f"t{len(ids)}")
                        ids.append(sent["ids"]["u1"])
                        written.append(sent["position"])
                    else:
                        some = dice.sample(ids, min(len(ids), dice.randrange(1, 4)))
                        how = dice.choice(("seen", "read", "unread", "archived", "unarchived"))
                        marked = await client.ask(mark={"cmd": str(uuid.uuid4()), "ids": some, "as": how})
                        written.append(marked["position"])
                for _ in range(dice.choice((expected, max(0, expected - 2)))):
                    frame = (await stream.next()).frame if stream else await client.push()
                    position = frame["position"]
                    take(view, frame["event"])
                    assert frame["counts"] == counted(view), "counts hold for their position"
        for at in written:
            assert (await http.get("/v1/notices/counts", params={"at_least": at})).status_code == 200
        async with door.socket() as client:
            answer = await client.ask(subscribe={"channel": "inbox", "since": position})
        view |= {n["id"]: n for n in answer["snapshot"]}
        everything = (await http.get("/v1/notices", params={"state": "all", "limit": 200})).json()
        assert {n["id"]: n["state"] for n in everything["items"]} == {i: n["state"] for i, n in view.items()}
        assert answer["counts"] == everything["counts"]


def counted(view: dict[str, Any]) -> dict[str, int]:
    """The counts of a client's own view."""
    standing = [n["state"] for n in view.values() if n["state"]["archived_at"] is None]
    return {
        name: sum(state[f"{at}_at"] is None for state in standing)
        for name, at in (("unread", "read"), ("unseen", "seen"))
    }


def take(view: dict[str, Any], event: dict[str, Any]) -> None:
    """A client's own view after one event."""
    if "notice" in event:
        view[event["notice"]["id"]] = event["notice"]
    for notice_id in event.get("ids", ()):
        fold(view[notice_id]["state"], event)


def fold(state: dict[str, Any], event: dict[str, Any]) -> None:
    """The reader's own fold, written apart."""
    at = event["at"]
    match event["op"]:
        case "seen":
            state["seen_at"] = state["seen_at"] or at
        case "read":
            state["seen_at"], state["read_at"] = state["seen_at"] or at, state["read_at"] or at
        case "unread":
            state["read_at"] = None
        case "archived":
            state["seen_at"], state["archived_at"] = state["seen_at"] or at, state["archived_at"] or at
        case "unarchived":
            state["archived_at"] = None
