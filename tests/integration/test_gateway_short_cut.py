"""Plain notices take a short way past the application: nobody can tell from the answers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from api.access.tokens import LEEWAY_S, Tokens, sign
from api.http import protocol as http_protocol
from api.http.protocol import BoundedHttpProtocol
from api.notices import intake
from api.notices.intake import Intake
from api.notices.short_cut import ShortCut
from api.server import Server
from tests.integration.gateway_world import SECRET, Door, Site
from topics.partition import partition_of

NOTICE = b'{"to":["u1"],"title":"hello"}'
AROUND = b"/v1/notices?"  # a path that only the application knows


@pytest.fixture
async def site(kafka: str, namespace: str, tmp_path: Path) -> Site:
    made = Site(kafka, namespace, tmp_path)
    await made.make()
    return made


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What the short way said of each request that it was offered."""
    said: list[bool] = []
    take = ShortCut.take

    def watched(*arguments: object) -> bool:
        said.append(take(*arguments))  # type: ignore[arg-type]
        return said[-1]

    monkeypatch.setattr(ShortCut, "take", watched)
    return said


class Wire:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        self.reader, self.writer, self.token = reader, writer, token

    def request(self, body: bytes = NOTICE, path: bytes = b"/v1/notices", *more: bytes) -> bytes:
        heads = (b"host: a", b"authorization: Bearer " + self.token.encode(), b"content-length: %d" % len(body), *more)
        return b"POST " + path + b" HTTP/1.1\r\n" + b"\r\n".join(heads) + b"\r\n\r\n" + body

    async def answer(self) -> tuple[str, dict[str, str], dict[str, object]]:
        """Status line, headers and body of the next answer."""
        async with asyncio.timeout(20):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:] if line)
            return lines[0], headers, json.loads(await self.reader.readexactly(int(headers["content-length"])))

    async def post(self, *arguments: bytes) -> tuple[str, dict[str, str], dict[str, object]]:
        """Ask and be answered."""
        self.writer.write(self.request(*arguments))
        return await self.answer()


@asynccontextmanager
async def wire(door: Door, token: str | None = None) -> AsyncIterator[Wire]:
    """A connection to the gateway, with a token that it has seen."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.server.port)
    found = Wire(reader, writer, token or door.token())
    if token is None:
        await found.post(NOTICE, AROUND)
    yield found
    writer.close()


async def test_both_ways_answer_alike(site: Site, taken: list[bool]) -> None:
    async with site.gateway() as door, wire(door) as line:
        for body in (
            NOTICE,
            b'{"to":["u1"]}',
            b'{"to":["u1"],"title":"t","link":"javascript:1"}',
            b"\xff",
            b"{",
            b"[]",
        ):
            named = b"x-request-id: mine-1"
            short, around = await line.post(body, b"/v1/notices", named), await line.post(body, AROUND, named)
            assert short[0] == around[0]
            assert short[1]["x-request-id"] == "mine-1"
            assert {k: v for k, v in short[1].items() if k != "date"} == {
                k: v for k, v in around[1].items() if k != "date"
            }
            assert {k: v for k, v in short[2].items() if k not in ("ids", "request_key", "position")} == {
                k: v for k, v in around[2].items() if k not in ("ids", "request_key", "position")
            }
            assert short[2].keys() == around[2].keys()
    assert taken == [True, False, False, False, False, False]


async def test_a_head_that_comes_again_is_not_parsed_again(
    site: Site, taken: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []
    parsed = BoundedHttpProtocol.on_message_begin

    def watched(self: BoundedHttpProtocol) -> None:
        known[-1:] = [False]
        parsed(self)

    monkeypatch.setattr(BoundedHttpProtocol, "on_message_begin", watched)
    async with site.gateway() as door, wire(door) as line:
        wrong, other = NOTICE.replace(b"title", b"trick"), NOTICE.replace(b"hello", b"there")
        ids = set()
        for body in (NOTICE, other, wrong, NOTICE):
            known.append(True)
            status, _, told = await line.post(body)
            assert status[9:12] == ("422" if body is wrong else "202")
            ids |= set(told.get("ids", {}).values())  # type: ignore[attr-defined]
        assert len(ids) == 3
        known.append(True)
        whole = line.request()
        for several in (whole * 3, whole[:-3], whole[-3:] + whole, b"\r\n" + whole, whole):
            line.writer.write(several)
            await asyncio.sleep(0.01)
        assert [(await line.answer())[0][9:12] for _ in range(7)] == ["202"] * 7
    assert known == [False, False, True, False, True, False]  # the first asked by another path
    assert taken[:5] == [True, True, False, False, True]  # what is refused is parsed after all


async def test_a_key_names_the_same_notice_on_both_ways(site: Site, taken: list[bool]) -> None:
    async with site.gateway() as door, wire(door) as line:
        key = b"idempotency-key: once"
        short, around = await line.post(NOTICE, b"/v1/notices", key), await line.post(NOTICE, AROUND, key)
        assert short[2]["ids"] == around[2]["ids"]
        assert short[2]["request_key"] == "once"
    assert taken == [True]


async def test_what_it_says_reaches_the_inbox_and_the_rows(site: Site, taken: list[bool]) -> None:
    async with (
        site.gateway() as door,
        site.working(),
        wire(door) as line,
        door.socket() as watcher,
        door.http() as http,
    ):
        await watcher.ask(subscribe={"channel": "inbox"})
        _, _, told = await line.post(b'{"to":["u1","u2"],"title":"a \\"b\\"","data":{"n":1.10}}')
        pushed = (await watcher.push())["event"]["notice"]
        assert (pushed["id"], pushed["title"]) == (told["ids"]["u1"], 'a "b"')  # type: ignore[index]
        read = await http.get(f"/v1/notices/{pushed['id']}", params={"at_least": str(told["position"])})
        assert '"data":{"n":1.10}' in read.text
    assert taken == [True]


async def test_a_recipients_addresses_are_forwarded_to(site: Site) -> None:
    async with site.gateway() as door, site.working(), wire(door) as line, door.http() as http:
        await http.put("/v1/recipients/u1", json={"name": "Ann", "addresses": {"email": "ann@a.test", "pigeon": "x"}})
        _, _, told = await line.post()
        query = {"at_least": str(told["position"])}
        found = (await http.get(f"/v1/notices/{told['ids']['u1']}", params=query)).json()  # type: ignore[index]
        assert [f["channel"] for f in found["forwards"]] == ["email"]


async def test_requests_sent_at_once_are_answered_in_order(site: Site) -> None:
    async with site.gateway() as door, wire(door) as line:
        keys = [b"idempotency-key: k%d" % i for i in range(6)]
        paths = [b"/v1/notices", AROUND, b"/v1/notices", b"/v1/notices", AROUND, b"/v1/notices"]
        line.writer.write(b"".join(line.request(NOTICE, p, k) for p, k in zip(paths, keys, strict=True)))
        assert [(await line.answer())[2]["request_key"] for _ in keys] == [f"k{i}" for i in range(6)]


async def test_a_body_may_come_in_pieces_and_a_connection_may_end_at_any_of_them(site: Site) -> None:
    async with site.gateway() as door:
        async with wire(door) as line:
            whole = line.request()
            for piece in (whole[:10], whole[10:-20], whole[-20:-1], whole[-1:]):
                line.writer.write(piece)
                await asyncio.sleep(0.01)
            assert (await line.answer())[0].startswith("HTTP/1.1 202")
        for cut in (len(whole) - 1, len(whole)):
            async with wire(door) as line:
                line.writer.write(whole[:cut])
        async with wire(door) as line:
            status, headers, _ = await line.post(NOTICE, b"/v1/notices", b"connection: close")
            assert (status, headers["connection"]) == ("HTTP/1.1 202 Accepted", "close")
            assert await line.reader.read() == b""


async def test_a_token_is_asked_for_each_time(site: Site, taken: list[bool]) -> None:
    async with site.gateway() as door:
        async with wire(door, door.token(scopes=("configs",))) as line:
            for _ in range(2):
                assert (await line.post())[0].startswith("HTTP/1.1 403")
        async with wire(door, "nonsense") as line:
            assert (await line.post())[0].startswith("HTTP/1.1 401")
        soon_over = sign(SECRET, "u1", ["notices:write"], ttl_s=4, now=time.time() - LEEWAY_S)
        async with wire(door, soon_over) as line:
            assert [(await line.post())[0][9:12] for _ in range(2)] == ["202", "202"]
            async with asyncio.timeout(10):
                while (await line.post())[0].startswith("HTTP/1.1 202"):  # noqa: ASYNC110 - nobody signals it
                    await asyncio.sleep(0.05)
            assert (await line.post())[0].startswith("HTTP/1.1 401")
    assert taken[:5] == [False, False, False, False, True]
    assert not taken[-1]


def test_a_token_that_was_checked_ends_when_it_ends() -> None:
    tokens, token = Tokens(SECRET, None), sign(SECRET, "u1", ttl_s=60)
    assert tokens.known(token) is None
    assert tokens.identify(token) == tokens.known(token)
    old = sign(SECRET, "u1", ttl_s=5, now=time.time() - 10)
    tokens.identify(old)  # within the leeway
    assert tokens.known(old) is not None
    assert tokens.known(token[:-1]) is None


async def test_whoever_waits_too_long_for_the_log_is_told(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(intake, "SEND_S", 0.1)
    async with site.gateway() as door, wire(door) as line:
        monkeypatch.setattr(door.server.gateway.producer, "enqueue_group", never)
        status, headers, problem = await line.post()
        assert (status, problem["code"]) == ("HTTP/1.1 503 Service Unavailable", "log_away")
        assert headers["content-type"] == "application/problem+json"


async def test_a_partition_that_does_not_answer_holds_up_no_other(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    users = {partition_of(f"u{i}", 2): f"u{i}" for i in range(20)}
    async with site.gateway() as door, wire(door) as stuck, wire(door) as line:
        enqueue_group = door.server.gateway.producer.enqueue_group

        async def partly(topic: str, partition: int, records: list[tuple[bytes, bytes]]) -> object:
            if partition == 0:
                await asyncio.Event().wait()
            return await enqueue_group(topic, partition, records)

        monkeypatch.setattr(door.server.gateway.producer, "enqueue_group", partly)
        said = [b'{"to":["%s"],"title":"t"}' % users[partition].encode() for partition in (0, 1)]
        stuck.writer.write(stuck.request(said[0]))
        for _ in range(5):
            assert (await line.post(said[1]))[0].startswith("HTTP/1.1 202")


async def test_a_lookup_that_fails_fails_those_who_asked_and_nobody_after(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.gateway() as door, wire(door) as line:
        with monkeypatch.context() as broken:
            broken.setattr(Intake, "_raise", lambda *_: 1 / 0)
            assert (await line.post())[0].startswith("HTTP/1.1 500")
        assert (await line.post())[0].startswith("HTTP/1.1 202")


async def test_a_body_that_stops_coming_is_cut_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "BODY_S", 0.1)
    async with site.gateway() as door:
        for path in (b"/v1/notices", AROUND):
            async with wire(door) as line:
                line.writer.write(line.request(NOTICE * 10, path)[:-5])
                async with asyncio.timeout(10):
                    assert await line.reader.read() == b""
        async with wire(door) as line:
            line.writer.write(b"POST /v1/notices HTTP/1.1\r\nhost: a\r\nauthorization: Bearer " + line.token.encode())
            line.writer.write(b"\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n")
            async with asyncio.timeout(10):
                assert await line.reader.read() == b""


async def test_a_connection_is_closed_when_it_idles_and_not_before(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[BoundedHttpProtocol] = []
    opened = BoundedHttpProtocol.connection_made

    def noted(self: BoundedHttpProtocol, transport: asyncio.Transport) -> None:
        made.append(self)
        opened(self, transport)

    monkeypatch.setattr(BoundedHttpProtocol, "connection_made", noted)
    async with site.gateway() as door, wire(door) as line:
        for _ in range(3):
            await line.post()
        made[-1].timeout_keep_alive_handler()  # the time is over that began with the first answer, not the last
        take = ShortCut.take

        def meanwhile(*arguments: object) -> bool:
            taken = take(*arguments)  # type: ignore[arg-type]
            made[-1].timeout_keep_alive_handler()
            return taken

        monkeypatch.setattr(ShortCut, "take", meanwhile)
        made[-1].timeout_keep_alive = 0
        assert (await line.post())[0].startswith("HTTP/1.1 202")
        async with asyncio.timeout(20):
            assert await line.reader.read() == b""


async def test_line_ends_alone_hold_no_connection_open(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site.gateway() as door, wire(door) as line:
        monkeypatch.setattr(http_protocol, "HEAD_S", 0.2)
        line.writer.write(b"\r\n")
        async with asyncio.timeout(10):
            assert await line.reader.read() == b""


async def test_gateways_that_share_a_port_are_both_given_connections(site: Site) -> None:
    async with (
        site.gateway(reuse_port=True) as one,
        site.gateway(reuse_port=True, port=one.server.port) as other,
        one.socket() as watcher,
    ):
        await watcher.ask(subscribe={"channel": "inbox"})
        sent, doors = set(), {one.server, other.server}
        async with asyncio.timeout(30):
            while doors:
                async with wire(one) as line:
                    sent |= {(await line.post())[2]["ids"]["u1"] for _ in range(2)}  # type: ignore[index]
                doors = {d for d in doors if not accepted(d)}
        told = {(await watcher.push())["event"]["notice"]["id"] for _ in sent}
        assert sent <= told | {(await watcher.push())["event"]["notice"]["id"] for _ in range(len(sent) // 2)}


def accepted(server: Server) -> float:
    """How many POSTs a gateway has answered with 202."""
    labels = {"method": "POST", "status": "202"}
    found = server.gateway.metrics.registry.get_sample_value("tidings_gateway_request_seconds_count", labels)
    return found or 0.0
