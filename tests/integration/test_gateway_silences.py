"""Silences over HTTP: who may mute what, how long, and how they are listed and ended."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from api.settings import Limits
from tests.integration.gateway_world import Site
from tests.integration.worker_site import raised
from topics.catalogue import NOTICES
from topics.events import Lane
from topics.produce import Producer


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> AsyncIterator[Site]:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    async with made.working():
        yield made


async def test_everybody_may_mute_for_themselves_and_end_it(site: Site) -> None:
    async with site.gateway() as door, door.http("ann", ()) as ann, door.http("bob", ()) as bob:
        made = await ann.post("/v1/silences", json={"alert": "overuse", "for": "2h", "comment": "at lunch"})
        assert made.status_code == 201, made.text
        one = made.json()
        assert (one["alert"], one["entity"], one["user"], one["everyone"]) == ("overuse", None, "ann", False)
        assert (one["by"], one["comment"]) == ("ann", "at lunch")
        ends = datetime.fromisoformat(one["until"]) - datetime.now(UTC)
        assert timedelta(minutes=119) < ends <= timedelta(hours=2, seconds=5)
        until = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        other = (await ann.post("/v1/silences", json={"entity": {"type": "vm", "id": "7"}, "until": until})).json()
        whole = (await ann.post("/v1/silences", json={"for": 60})).json()
        params = {"at_least": whole["position"]}
        listed = (await ann.get("/v1/silences", params=params)).json()
        assert [s["id"] for s in listed["items"]] == [other["id"], one["id"], whole["id"]]
        assert listed["items"][0]["entity"] == {"type": "vm", "id": "7"}
        assert (await bob.get("/v1/silences", params=params)).json()["items"] == []
        assert (await bob.delete(f"/v1/silences/{one['id']}")).status_code == 404
        ended = await ann.delete(f"/v1/silences/{one['id']}")
        assert ended.status_code == 200
        assert (await ann.get(f"/v1/silences/{one['id']}")).status_code == 404
        assert (await ann.delete(f"/v1/silences/{one['id']}")).status_code == 404
        again = (await ann.get("/v1/silences", params={"at_least": ended.json()["position"], "all": ""})).json()
        assert [s["id"] for s in again["items"]] == [other["id"], whole["id"]]


async def test_muting_others_needs_the_scope_and_everybody_sees_what_mutes_all(site: Site) -> None:
    async with site.gateway() as door, door.http("ann", ()) as ann, door.http("ops", ("configs",)) as ops:
        refused = await ann.post("/v1/silences", json={"alert": "overuse", "everyone": True, "for": "1h"})
        assert (refused.status_code, refused.json()["code"], refused.json()["scope"]) == (403, "forbidden", "configs")
        assert (await ann.post("/v1/silences", json={"user": "bob", "for": "1h"})).status_code == 403
        everyone = await ops.post("/v1/silences", json={"alert": "overuse", "everyone": True, "for": "1h"})
        assert everyone.status_code == 201
        assert (everyone.json()["user"], everyone.json()["everyone"]) == (None, True)
        for_bob = (await ops.post("/v1/silences", json={"user": "bob", "for": "30m"})).json()
        params = {"at_least": for_bob["position"]}
        assert len((await ops.get("/v1/silences", params=params)).json()["items"]) == 2
        seen = (await ann.get("/v1/silences", params=params)).json()["items"]
        assert [s["id"] for s in seen] == [everyone.json()["id"]]
        assert (await ann.delete(f"/v1/silences/{everyone.json()['id']}")).status_code == 403
        assert (await ops.delete(f"/v1/silences/{everyone.json()['id']}")).status_code == 200


WRONG: list[dict[str, Any]] = [
    {},
    {"alert": "x"},
    {"alert": "x", "for": "1h", "until": "2100-01-01T00:00:00Z"},
    {"alert": "x", "until": "2020-01-01T00:00:00Z"},
    {"alert": "x", "until": "2100-01-01T00:00:00Z"},
    {"alert": "x", "until": "tomorrow"},
    {"alert": "x", "for": 0},
    {"alert": "x", "for": "9999d"},
    {"alert": "", "for": "1h"},
    {"alert": ["x"], "for": "1h"},
    {"entity": "vm", "for": "1h"},
    {"everyone": True, "for": "1h"},
    {"everyone": True, "user": "ann", "alert": "x", "for": "1h"},
    {"alert": "x", "for": "1h", "comment": "x" * 501},
    {"alarm": "x", "for": "1h"},
]


async def test_what_is_wrong_is_named(site: Site) -> None:
    async with site.gateway() as door, door.http("ann") as http:
        for wrong in WRONG:
            answer = await http.post("/v1/silences", json=wrong)
            assert (answer.status_code, answer.json()["code"]) == (422, "bad_field"), (wrong, answer.text)


async def test_pages_repeats_and_limits(site: Site) -> None:
    async with site.gateway(limits=Limits(silences=5)) as door, door.http("ann", ()) as ann:
        headers = {"idempotency-key": "k"}
        made = [await ann.post("/v1/silences", json={"alert": "a0", "for": "1h"}, headers=headers) for _ in range(2)]
        assert [m.status_code for m in made] == [201, 200]
        assert made[0].json()["id"] == made[1].json()["id"]
        assert made[0].json()["until"] == made[1].json()["until"]
        for i in range(1, 5):
            more = await ann.post("/v1/silences", json={"alert": f"a{i}", "for": f"{i + 1}h"})
            assert more.status_code == 201
        over = await ann.post("/v1/silences", json={"alert": "a9", "for": "1h"})
        assert (over.status_code, over.json()["limit"], over.json()["value"]) == (422, "silences", 5)
        found, cursor, pages = [], None, 0
        while pages == 0 or cursor:
            params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
            page = (await ann.get("/v1/silences", params=params)).json()
            found += [s["alert"] for s in page["items"]]
            cursor, pages = page["next"], pages + 1
        assert (found, pages) == (["a4", "a3", "a2", "a1", "a0"], 3)
        assert (await ann.get("/v1/silences", params={"cursor": "x"})).json()["code"] == "bad_cursor"
        assert (await ann.get("/v1/silences", params={"all": "maybe"})).status_code == 400


async def test_what_is_silenced_is_skipped_and_a_digest_is_shown_by_what_it_holds_alone(
    site: Site,
) -> None:
    async with site.gateway() as door, door.http("ann") as http, door.socket("ann") as client:
        recipient = {"name": "Ann", "addresses": {"email": "ann@example.test"}}
        assert (await http.put("/v1/recipients/ann", json=recipient)).status_code == 201
        assert (await http.post("/v1/silences", json={"alert": "disk", "for": "1h"})).status_code == 201
        await client.ask(subscribe={"channel": "inbox"})
        async with sending(site) as producer:
            for name, alert in (("n1", "disk"), ("n2", "overuse"), ("n3", "overuse")):
                lanes = (Lane("email", "email", "recipient", "ann", 0),)
                more: dict[str, Any] = {"notice_id": name, "alert": alert, "config_id": "c1", "lanes": lanes}
                notice = raised("ann", **more, forward='{"digest":"3s"}', body=json.dumps({"title": name}).encode())
                await producer.send(NOTICES, "ann", notice)

        async def forward(name: str, *wanted: str | None) -> dict[str, Any]:
            async with asyncio.timeout(20):
                while True:
                    answer = await http.get(f"/v1/notices/{name}")
                    found: dict[str, Any] = answer.json()["forwards"][0] if answer.status_code == 200 else {}
                    if (found.get("outcome"), found.get("reason")) == wanted:
                        return found
                    await asyncio.sleep(0.05)

        await asyncio.gather(forward("n2", "waiting", "digest"), forward("n1", "skipped", "silenced"))
        await forward("n3", "waiting", None)  # handed over in the digest; nobody sends here
        assert (await forward("n2", "waiting", None))["what"] == "forward"
        everything = (await http.get("/v1/notices", params={"state": "all"})).json()
        assert [n["title"] for n in everything["items"]] == ["n3", "n2", "n1"]
        assert everything["counts"] == {"unread": 3, "unseen": 3}
        frames = [await client.push() for _ in range(3)]
        assert [f["event"]["notice"]["title"] for f in frames] == ["n1", "n2", "n3"]
        marked = await client.ask(mark={"cmd": "all", "all": True, "up_to": frames[-1]["position"], "as": "read"})
        ids = (await client.push())["event"]["ids"]
        assert sorted(ids) == ["n1", "n2", "n3"], marked


@asynccontextmanager
async def sending(site: Site) -> AsyncIterator[Producer]:
    producer = Producer(site.cluster, site.catalogue, "test")
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()
