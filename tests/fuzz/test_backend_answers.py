"""Whatever a backend says, is a JSON text or a documented refusal, and has its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.expand.backends import Backend
from api.expand.client import BackendClient, Unanswered
from tests.fuzz.profile import mutated, profile
from tests.fuzz.raw import cut

LARGEST = 4_096
CODES = {"timeout", "unreachable", "bad_answer", "too_large", "failed", "forbidden", "not_found"}
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
RIGHT = (
    HEAD + b"content-length: 7\r\n\r\n" + b'{"a":1}',
    HEAD + b"transfer-encoding: chunked\r\n\r\n7\r\n" + b'{"a":1}' + b"\r\n0\r\n\r\n",
    HEAD + b"connection: close\r\n\r\n" + b'{"a":1}',
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"content-length: 2\r\n\r\n[]",
    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\n\x1f\x8b\x08",
)


class Liar:
    """A server that says what it is told to, whatever it is asked, and hangs up after that or does not."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.hangs_up = True
        self._waiting: set[asyncio.StreamWriter] = set()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._waiting.add(writer)
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                for piece in self.pieces:
                    writer.write(piece)
                    await writer.drain()
                if self.hangs_up:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._waiting.discard(writer)
            writer.close()


Asked = tuple[asyncio.Runner, Liar, BackendClient]


@pytest.fixture(scope="module")
def asked() -> Iterator[Asked]:
    with asyncio.Runner() as runner:
        liar = Liar()
        server = runner.run(_serve(liar))
        port = server.sockets[0].getsockname()[1]
        backend = Backend(url=f"http://127.0.0.1:{port}", paths=("/{id}",), timeout=0.05, largest=LARGEST)
        client = BackendClient(backend)
        yield runner, liar, client
        client.close()
        server.close()


async def _serve(liar: Liar) -> asyncio.Server:
    return await asyncio.start_server(liar.answer, "127.0.0.1", 0)


@profile(120)
@given(mutated(RIGHT), st.booleans(), st.lists(st.integers(0, 300), max_size=3))
@example(HEAD + b"content-length: 104857600\r\n\r\n[" + b"1," * 100_000, True, [])
@example(HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 20_000, True, [])
@example(HEAD + b"x: " + b"y" * 1_000_000, False, [])
@example(b"HTTP/1.1 100 Continue\r\n\r\n" * 50_000, True, [])
@example(HEAD + b"content-length: 3000\r\n\r\n" + b"[" * 3_000, True, [])
def test_a_backend_is_believed_or_refused(asked: Asked, said: bytes, hangs_up: bool, places: list[int]) -> None:
    runner, liar, client = asked
    liar.pieces, liar.hangs_up = cut(said, places), hangs_up

    async def ask() -> None:
        try:
            text = await client.get("/1", None)
        except Unanswered as error:
            assert error.code in CODES  # noqa: PT017 - both are right
        else:
            assert len(text) <= LARGEST
            orjson.loads(text)

    runner.run(ask())


def test_a_name_that_is_none_is_unreachable(asked: Asked) -> None:
    runner, *_ = asked
    for host in ("a..b", "a" * 64 + ".test"):
        with pytest.raises(Unanswered, match="unreachable"):
            runner.run(BackendClient(Backend(url=f"http://{host}", paths=("/{id}",))).get("/1", None))
