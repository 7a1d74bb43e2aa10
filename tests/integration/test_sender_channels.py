"""Channels on real connections: Apprise to an HTTP server, the sink, and how a channel is found."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sender.channels.channel import Rejected, RetryLater, Sent, open_channel
from sender.channels.email import EmailChannel
from sender.message import Message
from sender.settings import SenderSettings
from sender.sink import KEPT, SmtpSink
from tests.integration.sender_world import SmtpServer

MESSAGE = Message(
    delivery_id="d1",
    message_id="<d1@tidings>",
    notice_id="n1",
    user="u1",
    channel="hook",
    address="a/b c",
    title="ä title",
    text="ä text",
    severity="error",
    link=None,
    alert=None,
    name=None,
    requested_at=1_764_000_000_000,
)


def message(**more: str) -> Message:
    return Message(**{f: getattr(MESSAGE, f) for f in MESSAGE.__dataclass_fields__} | more)


class Hook:
    """An HTTP server that gives each request the next answer."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.requests: list[bytes] = []

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
        self.requests.append(head + await reader.readexactly(length))
        status = self.answers.pop(0)
        if status:
            writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % status)
            await writer.drain()
            writer.close()


@pytest.fixture
async def hook() -> AsyncIterator[tuple[Hook, SenderSettings]]:
    one = Hook()
    server = await asyncio.start_server(one.answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield one, SenderSettings(channels={"hook": f"json://127.0.0.1:{port}/to/{{address}}/?:from=tidings"})
    server.close()


async def test_apprise_is_told_the_address_quoted_and_a_no_is_tried_again(hook: tuple[Hook, SenderSettings]) -> None:
    server, settings = hook
    channel = open_channel("hook", settings)
    assert channel is not None
    server.answers = [200, 500]
    assert await channel.deliver(MESSAGE, 10) == Sent("taken")
    assert isinstance(await channel.deliver(MESSAGE, 10), RetryLater)
    assert server.requests[0].startswith(b"POST /to/a%2Fb%20c")
    assert b"[ERROR] \\u00e4 title" in server.requests[0] or "[ERROR] ä title".encode() in server.requests[0]


async def test_apprise_that_hangs_is_left_after_its_time(hook: tuple[Hook, SenderSettings]) -> None:
    server, settings = hook
    channel = open_channel("hook", settings)
    assert channel is not None
    server.answers = [0]
    assert isinstance(await channel.deliver(MESSAGE, 1), RetryLater)


async def test_an_url_that_apprise_does_not_know_is_refused() -> None:
    channel = open_channel("pigeon", SenderSettings(channels={"pigeon": "pigeon://{address}"}))
    assert channel is not None
    assert isinstance(await channel.deliver(MESSAGE, 10), Rejected)


def test_a_channel_is_found_by_its_name_and_no_other_module_is() -> None:
    settings = SenderSettings()
    assert isinstance(open_channel("email", settings), EmailChannel)
    for name in ("channel", "apprise", "pigeon", "", "../email", "Email", "email.message"):
        assert open_channel(name, settings) is None


async def test_a_channel_from_outside_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pigeon-1.dist-info").mkdir()
    (tmp_path / "pigeon-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon\nVersion: 1\n")
    (tmp_path / "pigeon-1.dist-info" / "entry_points.txt").write_text(
        "[tidings.channels]\npigeon = pigeon:open_channel\n"
    )
    (tmp_path / "pigeon.py").write_text(
        "from sender.channels.channel import Sent\n"
        "class Pigeon:\n"
        "    async def deliver(self, message, deadline_s): return Sent('flown to ' + message.address)\n"
        "    async def close(self): pass\n"
        "def open_channel(settings): return Pigeon()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    channel = open_channel("pigeon", SenderSettings())
    assert channel is not None
    assert await channel.deliver(message(address="the loft"), 1) == Sent("flown to the loft")


def test_apprise_is_not_loaded_by_the_sender_itself() -> None:
    code = "import sys, sender.service, sender.channels.email; assert 'apprise' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


async def test_the_sink_keeps_the_last_mails() -> None:
    sink = SmtpSink()
    await sink.start()
    channel = EmailChannel(sink.url, "Tidings <t@localhost>")
    for i in range(KEPT + 3):
        assert isinstance(await channel.deliver(message(address=f"a{i}@example.test"), 10), Sent)
    mails = sink.mails()
    assert len(mails) == KEPT
    last = mails[-1]
    assert (last["id"], last["to"], last["subject"]) == (str(KEPT + 3), f"a{KEPT + 2}@example.test", "[ERROR] ä title")
    assert last["text"].startswith("ä text")
    assert last["at"].endswith("Z")
    await channel.close()
    await sink.stop()


async def test_a_mail_without_a_server_or_a_listener_waits() -> None:
    to = message(address="a@example.test")
    assert isinstance(await EmailChannel(None, "t@localhost").deliver(to, 1), RetryLater)
    assert isinstance(await EmailChannel("smtp://127.0.0.1:1", "t@localhost").deliver(to, 1), RetryLater)


async def test_a_kept_connection_that_died_is_replaced_without_an_attempt() -> None:
    server = SmtpServer()
    await server.start()
    channel = EmailChannel(server.url, "t@localhost")
    assert isinstance(await channel.deliver(message(address="a@example.test"), 5), Sent)
    for connection in list(server.connections):
        connection.transport.abort()
    assert isinstance(await channel.deliver(message(address="b@example.test"), 5), Sent)
    assert (len(server.mails), server.made) == (2, 2)
    await channel.close()
    await server.stop()


async def test_a_refused_receiver_does_not_spoil_the_connection_for_the_next() -> None:
    server = SmtpServer()
    await server.start()
    channel = EmailChannel(server.url, "t@localhost")
    server.rcpt_script = ["", "550 no", "", "452 full"]
    found = [await channel.deliver(message(address=f"{n}@example.test"), 5) for n in "abcd"]
    assert found[1] == Rejected("550 no")
    assert found[3] == RetryLater("452 full")
    assert [isinstance(found[i], Sent) for i in (0, 2)] == [True, True]
    await channel.close()
    await server.stop()


async def test_an_address_outside_ascii_is_sent_as_utf8() -> None:
    server = SmtpServer()
    await server.start()
    channel = EmailChannel(server.url, "t@localhost")
    assert isinstance(await channel.deliver(message(address="jürgen@example.test"), 5), Sent)
    assert "jürgen@example.test".encode() in server.mails[0]
    await channel.close()
    await server.stop()
