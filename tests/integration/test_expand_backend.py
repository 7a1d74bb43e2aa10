"""Whatever a backend does, an answer costs a bounded time and a bounded memory, and becomes nobody else's."""

import asyncio
import json
import os
import ssl
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from api.expand.backends import Backend
from api.expand.circuit import FAILURES
from api.expand.expansion import Answers, Expander, Version
from api.live.protocol import Expand
from api.metrics import Metrics
from api.problems import Problem
from tests.integration import odd_backend
from tests.integration.odd_backend import BOMB, Behaviour, OddBackend, answer, hang, hung_up, raw

SMUGGLED = b'HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n"poison"'
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@pytest.fixture
async def backend() -> AsyncIterator[OddBackend]:
    async with OddBackend().serving() as serving:
        yield serving


@asynccontextmanager
async def expander(settings: Backend) -> AsyncIterator[Expander]:
    made = Expander({"panel": settings}, Metrics())
    try:
        yield made
    finally:
        await made.stop()


async def fetched(expander: Expander, entity_id: str = "1", *, offset: int = 0, token: str = "") -> Any:
    asked = Expand(backend="panel", path="/{type}/{id}")
    return json.loads(
        f"{{{await expander.expansion(asked, lambda: token).members(Version('vm', entity_id, 0, offset))}}}"
    )


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        (hang, "timeout"),
        (odd_backend.trickle, "timeout"),
        (odd_backend.flood_headers, "bad_answer"),
        (odd_backend.flood_interim, "bad_answer"),
        (hung_up(), "unreachable"),
        (hung_up(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{}"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", SMUGGLED), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 2\r\n\r\n{}"), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}"), "bad_answer"),
        (raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), "bad_answer"),
        (odd_backend.hundred_megabytes(b"HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n"), "too_large"),
        (odd_backend.hundred_megabytes(b"HTTP/1.1 200 OK\r\n\r\n"), "too_large"),
        (odd_backend.hundred_megabytes(CHUNKED), "too_large"),
        (raw(CHUNKED, b"1;" + b"x" * 2_000_000 + b"\r\n1\r\n0\r\n\r\n"), "bad_answer"),
        (raw(CHUNKED, b"1\r\n \r\n" * 600_000), "bad_answer"),
        (answer(BOMB, headers="content-encoding: gzip\r\n"), "bad_answer"),
        (answer(BOMB), "bad_answer"),
        (raw(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n" + BOMB), "bad_answer"),
        (answer(b"", status="302 Found", headers="location: http://127.0.0.1:1/\r\n"), "failed"),
        (answer(b"{}", status="500 Oh"), "failed"),
        (answer(b"{}", status="404 No"), "not_found"),
        (answer(b"{}", status="403 No"), "forbidden"),
        (answer(b""), "bad_answer"),
        (answer(b"{} {}"), "bad_answer"),
        (answer(b"NaN"), "bad_answer"),
        (answer(b'"\xff"'), "bad_answer"),
        (answer(b'"\\ud800"'), "bad_answer"),
        (answer(b"[" * 100_000), "bad_answer"),
    ],
)
async def test_every_misbehaviour_has_its_code_and_the_next_answer_is_whole(
    backend: OddBackend, behaviour: Behaviour, code: str
) -> None:
    backend.behaviours["/vm/1"] = [behaviour]
    async with expander(backend.settings(timeout=1.5 if code == "timeout" else 20)) as some:
        tracemalloc.start()
        try:
            assert (await fetched(some))["expand_error"]["code"] == code
            assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
        finally:
            tracemalloc.stop()
        assert await fetched(some) == {"entity": {"path": "/vm/1"}}


async def test_an_answer_may_be_as_large_as_the_settings_say_and_no_larger(backend: OddBackend) -> None:
    backend.behaviours["/vm/1"] = [answer(b'"' + b"a" * n + b'"') for n in (998, 999)]
    async with expander(backend.settings(largest=1_000)) as some:
        assert len((await fetched(some))["entity"]) == 998
        assert (await fetched(some, offset=1))["expand_error"]["code"] == "too_large"


async def test_many_endless_answers_at_once_take_no_more_memory_than_a_few(backend: OddBackend) -> None:
    for n in range(40):
        backend.behaviours[f"/vm/{n}"] = [odd_backend.hundred_megabytes(CHUNKED)]
    async with expander(backend.settings(timeout=60)) as some:
        tracemalloc.start()
        try:
            found = await asyncio.gather(*(fetched(some, str(n)) for n in range(40)))
            assert {f["expand_error"]["code"] for f in found} == {"too_large"}
            assert tracemalloc.get_traced_memory()[1] < 24 * 1024 * 1024
        finally:
            tracemalloc.stop()


async def test_an_answer_is_passed_on_as_the_text_it_is(backend: OddBackend) -> None:
    text = '{\r\n "a": 1.10,\n "b": "x y", "a": 1e300}\n'
    backend.behaviours["/vm/1"] = [answer(text.encode())]
    async with expander(backend.settings()) as some:
        source = some.expansion(Expand(backend="panel", path="/{type}/{id}"), str)
        assert await source.members(Version("vm", "1", 0, 0)) == f'"entity":{text}'


async def test_connections_are_kept_and_replaced_when_the_backend_hangs_up_between_two_questions(
    backend: OddBackend,
) -> None:
    said_goodbye = asyncio.Event()

    async def goodbye(writer: asyncio.StreamWriter) -> None:
        await answer(b"{}")(writer)
        writer.close()
        said_goodbye.set()

    async with expander(backend.settings(cache=0)) as some:
        for offset in range(3):
            assert "entity" in await fetched(some, offset=offset)
        assert backend.connections == 1
        backend.behaviours["/vm/1"] = [goodbye, answer(b"{}", headers="connection: close\r\n")]
        for offset in range(3, 6):
            assert "entity" in await fetched(some, offset=offset)
        assert said_goodbye.is_set()
        assert backend.connections == 3


async def test_who_asks_at_the_same_time_for_the_same_is_one_question_and_the_answer_is_kept(
    backend: OddBackend,
) -> None:
    backend.hold = asyncio.Event()
    async with expander(backend.settings()) as some:
        many = [asyncio.create_task(fetched(some)) for _ in range(100)]
        gone = asyncio.create_task(fetched(some))
        await until(lambda: backend.asked)
        gone.cancel()
        backend.hold.set()
        assert await asyncio.gather(*many) == [{"entity": {"path": "/vm/1"}}] * 100
        assert await fetched(some) == {"entity": {"path": "/vm/1"}}
        assert backend.count("/vm/1") == 1
        await fetched(some, offset=1)
        assert backend.count("/vm/1") == 2


async def test_errors_are_not_kept(backend: OddBackend) -> None:
    backend.behaviours["/vm/1"] = [answer(b"", status="404 No")]
    async with expander(backend.settings()) as some:
        assert "expand_error" in await fetched(some)
        assert "entity" in await fetched(some)


async def test_subscribers_are_asked_for_with_their_own_token_and_share_nothing(backend: OddBackend) -> None:
    backend.says = lambda _, authorization: {"for": authorization}
    async with expander(backend.settings(auth="subscriber")) as some:
        found = await asyncio.gather(*(fetched(some, token=f"t{n % 3}") for n in range(9)))
        assert found == [{"entity": {"for": f"Bearer t{n % 3}"}} for n in range(9)]
        assert len(backend.asked) == 3
    async with expander(backend.settings(token="service's")) as some:
        assert await fetched(some, token="t1") == {"entity": {"for": "Bearer service's"}}
    async with expander(backend.settings()) as some:
        assert await fetched(some, token="t1") == {"entity": {"for": None}}


async def test_a_token_with_characters_that_no_header_takes_hurts_nobody_else(backend: OddBackend) -> None:
    async with expander(backend.settings(auth="subscriber")) as some:
        for token in ("t\r\nx: y", "t\u00e9", "t\n", "t\x00", "\ud800") * FAILURES:
            assert (await fetched(some, token=token))["expand_error"]["code"] == "forbidden"
        assert not backend.asked
        assert "entity" in await fetched(some, token="t")


async def test_a_name_that_is_none_is_an_error_like_others(backend: OddBackend) -> None:
    async with expander(backend.settings(url=f"http://{'x' * 64}.test")) as some:
        assert (await fetched(some))["expand_error"]["code"] == "unreachable"


async def test_a_backend_has_no_more_questions_at_a_time_than_it_takes(backend: OddBackend) -> None:
    backend.hold = asyncio.Event()
    async with expander(backend.settings(concurrency=3)) as some:
        many = [asyncio.create_task(fetched(some, str(n))) for n in range(50)]
        await until(lambda: backend.at_once == 3)
        backend.hold.set()
        assert all("entity" in found for found in await asyncio.gather(*many))
        assert backend.most_at_once == 3
        assert backend.connections == 3


async def test_a_backend_that_keeps_failing_is_left_alone(backend: OddBackend) -> None:
    backend.behaviours["/vm/1"] = [answer(b"", status="503 Busy")] * FAILURES
    async with expander(backend.settings()) as some:
        for _ in range(FAILURES):
            assert (await fetched(some))["expand_error"]["code"] == "failed"
        assert (await fetched(some))["expand_error"]["code"] == "circuit_open"
        assert len(backend.asked) == FAILURES


async def test_a_name_that_leads_to_a_metadata_address_is_not_connected_to(
    backend: OddBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name server is the stranger here: between two look-ups it changes its mind."""
    answers = [["127.0.0.1"], ["127.0.0.1", "169.254.169.254"], ["169.254.169.254"]]

    async def looked_up(*_: Any, **__: Any) -> Any:
        return [(0, 0, 0, "", (address, backend.port)) for address in answers.pop(0)]

    settings = backend.settings(url=f"http://panel.test:{backend.port}", cache=0)
    backend.behaviours["/vm/1"] = [answer(b"{}", headers="connection: close\r\n")]
    async with expander(settings) as some:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", looked_up, raising=False)
        assert "entity" in await fetched(some)
        for _ in range(2):
            assert (await fetched(some))["expand_error"]["code"] == "unreachable"
        assert backend.connections == 1


async def test_a_backend_has_to_show_a_certificate_for_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = certified("localhost", tmp_path)
    async with OddBackend().serving(own) as backend:
        named, numbered = (f"https://{host}:{backend.port}" for host in ("localhost", "127.0.0.1"))
        for url, authority, shown in ((named, "", False), (numbered, "x", False), (named, "x", True)):
            monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem") if authority else os.devnull)
            async with expander(backend.settings(url=url)) as some:
                found = await fetched(some)
            assert ("entity" in found) is shown, (url, found)
            assert shown or found["expand_error"]["code"] == "unreachable"


def certified(name: str, folder: Path) -> ssl.SSLContext:
    """A server's side with a certificate of its own making for this name, written to the folder."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    (folder / "certificate.pem").write_bytes(made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context


async def test_what_the_settings_do_not_offer_is_refused(backend: OddBackend) -> None:
    async with expander(backend.settings()) as some:
        for asked in (Expand(backend="other", path="/{type}/{id}"), Expand(backend="panel", path="/admin/{id}")):
            with pytest.raises(Problem, match="bad_expand"):
                some.expansion(asked, str)
        assert (await fetched(some, "../admin"))["expand_error"]["code"] == "bad_path"
        assert not backend.asked


def test_answers_are_kept_for_their_time_and_in_their_bytes() -> None:
    answers = Answers(10_000, 60)
    for n in range(100):
        answers.put(("a", n), "x" * 1_000, 0)
        assert answers.bytes <= 10_000
    assert answers.get(("a", 0), 1) is None
    assert answers.get(("a", 99), 59)
    assert answers.get(("a", 99), 60) is None
    answers.put(("b",), "x" * 20_000, 0)
    assert answers.bytes == 0


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - a condition that nobody signals
            await asyncio.sleep(0.005)
