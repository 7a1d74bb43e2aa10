"""The main job from end to end: every role a process, a real broker, a real mail server, and the example alerts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import websockets

from tests.integration.command_line import ROOT
from tests.integration.gateway_world import Talk
from tests.integration.whole_site import Post, Site, running
from topics.catalogue import DELIVERIES, NOTICES
from topics.events import Decided, DeliveryRequested, DeliverySent
from topics.ids import new_id
from topics.json_text import compact, members

FORWARD_AFTER_S = 2
ODD = (
    r"""{ "field" : "cpu", "high":9.0e1 ,"low":70, "for_s" : 5, "for_s": 0, "1.10": 1.10, "1.0":1.0, "huge":1e400,
    "big": -12345678901234567890123, "tiny":1E-999, "-0":-0, "dup":1,"dup": "1", "":{}, "\ud800":"\ud800", "é": "é  😀",
    "\u0041":"\u00e9\ud83d\ude00 \/ \" \\ 1 , 2 \t", "deep":"""
    + "[" * 98
    + "]" * 98
    + "}"
)
HALF = r'"\ud800":"\ud800",'  # half a pair: no program may say it, since no UTF-8 has it
ECHO = """import json, sys
raw = "null"
for text in sys.stdin:
    line = json.loads(text)
    if line["type"] == "hello":
        print('{"type":"hello","v":1}', flush=True)
        continue
    if line["type"] == "config" and line["op"] == "set":
        raw = text.partition('"metric":')[2]
        raw = raw[: json.JSONDecoder().raw_decode(raw)[1]].replace(HALF, "")
    if line["type"] == "entity":
        print('{"type":"notice","key":"k","config":"odd","title":"t","kind":"event","data":' + raw + "}")
    print('{"type":"done"}', flush=True)
"""
MAKING = (200, 201)


async def prepared(site: Site) -> None:
    """Ann, and a config for each of the two example alerts."""
    ann = {"name": "Ann", "addresses": {"email": "ann@example.test"}}
    await site.surely("PUT", "/v1/recipients/ann", "boss", ann, MAKING)
    metrics: dict[str, Any] = {
        "overuse": {"field": "cpu", "high": 90, "low": 70, "for_s": 1},
        "disk-nearly-full": {"percent": 90},
    }
    for name, metric in metrics.items():
        config = {"id": name, "name": name, "metric": metric, "channel": {"email": ["ann"]}}
        await site.surely("POST", "/v1/alert-configs", "boss", config, (201, 409))


async def put_host(site: Site, *, cpu: float, disk: float) -> None:
    host = {"name": "web-1", "cpu": cpu, "disks": [{"mount": "/", "percent": disk}]}
    await site.surely("PUT", "/v1/entities/host/web-1", "backend", host, (202,))


async def inbox_event(talk: Talk, op: str) -> dict[str, Any]:
    """The next event of this kind."""
    while True:
        frame = await talk.push(40)
        if frame.get("event", {}).get("op") == op:
            return frame


@pytest.mark.timeout(150)
async def test_two_alerts_one_notice_read_one_left_one_mail(
    kafka: str, namespace: str, tmp_path: Path, free_ports: tuple[int, int]
) -> None:
    post, alerts = Post(), tmp_path / "alerts.toml"
    (tmp_path / "echo.py").write_text(ECHO.replace("HALF", repr(HALF)))
    alerts.write_text(
        (ROOT / "examples" / "alerts.toml").read_text().replace('cwd = "', f'cwd = "{ROOT}/examples/')
        + '[[alert]]\nname = "echo"\nrun = ["python3", "echo.py"]\nentities = ["host"]\n'
    )
    async with running(
        kafka, namespace, tmp_path, post, alerts=alerts, ports=free_ports, forward_after=FORWARD_AFTER_S
    ) as site:
        await prepared(site)
        async with websockets.connect(site.url.replace("http", "ws") + "/v1/ws") as socket:
            talk = Talk(socket)
            await talk.ask(auth={"token": site.token("ann")})
            assert (await talk.ask(subscribe={"channel": "inbox"}))["snapshot"] == []

            await put_host(site, cpu=97, disk=99.5)
            full = (await inbox_event(talk, "raised"))["event"]["notice"]  # at once; the other one only after for_s
            assert (full["alert"], full["title"]) == ("disk-nearly-full", "Disk / of web-1 is 99.5% full")
            assert full["metric"] == {"percent": 90}
            cmd = new_id()
            assert "error" not in await talk.ask(mark={"cmd": cmd, "ids": [full["id"]], "as": "read"})
            read = await inbox_event(talk, "read")
            assert (read["event"]["ids"], read["event"]["cause"]) == ([full["id"]], cmd)

            busy = await inbox_event(talk, "raised")
            left = busy["event"]["notice"]
            assert (left["alert"], left["title"]) == ("overuse", "cpu of web-1 is 97%")
            assert left["entity"] == {"type": "host", "id": "web-1"}
            assert busy["counts"] == {"unread": 1, "unseen": 1}
            await site.until(lambda: one_mail(post))  # and the time of the one that was read is over before this one's
            await site.until(site.unrest)

            boxes, deliveries = [r.event for r in await site.log(NOTICES)], await site.log(DELIVERIES)
            assert [e.answer for e in boxes if isinstance(e, Decided)] == ["deliver"]
            (asked,) = [r.event for r in deliveries if isinstance(r.event, DeliveryRequested)]
            assert (asked.notice_id, asked.user, asked.channel) == (left["id"], "ann", "email")
            (sent,) = [r.event for r in deliveries if isinstance(r.event, DeliverySent)]
            assert (sent.delivery_id, sent.attempt) == (asked.delivery_id, 1)
            assert {m: len(at) for m, at in post.taken.items()} == {asked.message_id: 1}
            assert post.to == {asked.message_id: "ann@example.test"}
            mail = post.mails[asked.message_id]
            assert mail["Subject"] == "cpu of web-1 is 97%"
            assert left["id"] in mail.as_string()
            assert await forwards(site, full["id"]) == [("email", "skipped: read")]
            ((channel, outcome),) = await forwards(site, left["id"])
            assert channel == "email"
            assert outcome.startswith("sent")

            await put_host(site, cpu=5, disk=20)  # and both conditions are over
            ended = {i for _ in range(2) for i in (await inbox_event(talk, "ended"))["event"]["ids"]}
            assert ended == {full["id"], left["id"]}
            await an_odd_metric(site, socket)


async def an_odd_metric(site: Site, socket: websockets.ClientConnection) -> None:
    """From PUT to the push and the stored notice it stays as it is, and a program can say it again."""
    text, boss = f'{{"name":"echo","channel":{{"inbox":["ann"]}},"metric" :{ODD}}}', site.token("boss")
    answer = await site.http.put(
        "/v1/alert-configs/odd", content=text.encode(), headers={"authorization": f"Bearer {boss}"}
    )
    assert answer.status_code == 201, answer.text
    await put_host(site, cpu=6, disk=20)
    async with asyncio.timeout(40):
        while '"config":"odd"' not in (frame := str(await socket.recv())):
            pass
    pushed = members(members(members(frame)["event"])["notice"])
    path, ann = f"/v1/notices/{json.loads(pushed['id'])}", site.token("ann")
    stored = members((await site.http.get(path, headers={"authorization": f"Bearer {ann}"})).text)
    for found in (pushed, stored):
        assert compact(found["metric"]) == compact(ODD)
        assert compact(found["data"]) == compact(ODD.replace(HALF, ""))


async def one_mail(post: Post) -> str:
    return "" if post.taken else "there is no mail"


async def forwards(site: Site, notice: str) -> list[tuple[str, str]]:
    answer = await site.http.get(f"/v1/notices/{notice}", headers={"authorization": f"Bearer {site.token('ann')}"})
    return [(f["channel"], f"{f['outcome']}: {f['reason']}") for f in json.loads(answer.text)["forwards"]]
