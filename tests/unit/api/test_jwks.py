"""Where the public keys of tokens come from, when they are looked at again, and what is never taken for one."""

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from api.access import jwks
from api.access.jwks import LARGEST, wrong_url
from api.access.tokens import Tokens
from api.problems import Problem

CLAIMS = {"sub": "u1", "exp": 2**33}
KEYS = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("one", "two", "three")}


def public(*names: str) -> bytes:
    """A JWKS of these keys."""
    made = [json.loads(jwt.algorithms.ECAlgorithm.to_jwk(KEYS[n].public_key())) | {"kid": n} for n in names]
    return json.dumps({"keys": made}).encode()


def signed(name: str, kid: str | None = None) -> str:
    return jwt.encode(CLAIMS, KEYS[name], algorithm="ES256", headers={"kid": kid or name})


def refusal(tokens: Tokens, token: str) -> str:
    with pytest.raises(Problem) as told:
        tokens.identify(token)
    return told.value.code


class Provider:
    """A web server whose answer is the test's; `asked` counts."""

    def __init__(self) -> None:
        self.status, self.body, self.asked, self.headers = 200, b"", 0, dict[str, str]()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked += 1
                self.send_response(outer.status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # who has read enough goes away
                    self.wfile.write(outer.body)

            def log_message(self, *_: Any) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


@contextlib.asynccontextmanager
async def following(tokens: Tokens) -> AsyncIterator[None]:
    assert tokens.keys is not None
    task = asyncio.create_task(tokens.keys.follow())
    try:
        yield
    finally:
        task.cancel()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - a condition that nobody signals
            await asyncio.sleep(0.005)


async def test_keys_of_a_url_are_fetched_at_the_start_and_again_for_one_that_is_not_known(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.body = public("one")
    tokens = Tokens(None, provider.url)
    assert refusal(tokens, signed("one")) == "keys_away"  # nobody is sent away for good before they were read
    async with following(tokens):
        await until(lambda: tokens.keys and tokens.keys.ready)
        assert tokens.identify(signed("one")).user == "u1"
        provider.body = public("one", "two")
        assert [refusal(tokens, signed("two")) for _ in range(3)] == ["unauthorized"] * 3  # it was asked just now
        assert provider.asked == 1
        monkeypatch.setattr(jwks, "REFETCH_S", 0.0)
        assert refusal(tokens, signed("two")) == "keys_away"
        monkeypatch.setattr(jwks, "REFETCH_S", 30.0)
        await until(lambda: provider.asked == 2 and tokens.keys and not tokens.keys._wanted.is_set())
        assert tokens.identify(signed("two")).user == "u1"
        assert refusal(tokens, signed("three")) == "unauthorized"
        assert provider.asked == 2


async def test_while_the_url_is_away_or_says_nonsense_the_keys_hold_on(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.body = public("one")
    tokens = Tokens(None, provider.url)
    monkeypatch.setattr(jwks, "REFRESH_S", 0.01)
    async with following(tokens):
        await until(lambda: tokens.keys and tokens.keys.ready)
        elsewhere = {"location": provider.url}
        for status, body, headers in (
            (500, b"", {}),
            (302, public("two"), elsewhere),
            (200, b"nonsense", {}),
            (200, b"[]", {}),
            (200, b'{"keys":[]}', {}),
            (200, b'{"keys":[{"kty":"oct","kid":"two","k":"AAAA"}]}', {}),
            (200, b" " * (LARGEST + 1) + public("two"), {}),
        ):
            provider.status, provider.body, provider.headers = status, body, headers
            before = provider.asked
            await until(lambda before=before: provider.asked >= before + 2)  # type: ignore[misc]
            assert tokens.identify(signed("one")).user == "u1"
            assert refusal(tokens, signed("two")) == "keys_away"
            tokens._known.clear()
        provider.stop()
        assert tokens.identify(signed("one")).user == "u1"


async def test_a_file_that_changed_is_read_again_and_a_key_that_is_gone_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "FILE_S", 0.01)
    file = tmp_path / "keys.json"
    file.write_bytes(public("one"))
    tokens = Tokens(None, str(file))
    token = signed("one")
    async with following(tokens):
        assert tokens.identify(token).user == "u1"
        assert tokens.known(token) is not None
        file.write_bytes(public("two", "three"))
        await until(lambda: tokens.known(token) is None)
        assert tokens.identify(signed("two")).user == "u1"
        assert refusal(tokens, token) == "unauthorized"


def test_no_algorithm_is_taken_for_another(tmp_path: Path) -> None:
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(private.public_key())) | {"kid": "rsa", "alg": "RS256"}
    encrypting = json.loads(public("two"))["keys"][0] | {"use": "enc"}
    shared = {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": [key, encrypting, shared, *json.loads(public("one"))["keys"]]}))
    tokens = Tokens(None, str(file))
    assert tokens.identify(jwt.encode(CLAIMS, private, algorithm="RS256", headers={"kid": "rsa"})).user == "u1"
    forged = jwt.api_jws.PyJWS(algorithms=["HS256"])
    forged._algorithms["HS256"].prepare_key = lambda key: key  # type: ignore[method-assign]
    payload = json.dumps(CLAIMS).encode()
    for token in (
        forged.encode(payload, pem, algorithm="HS256", headers={"kid": "rsa"}),  # the public key as a shared secret
        jwt.encode(CLAIMS, private, algorithm="RS512", headers={"kid": "rsa"}),
        jwt.encode(CLAIMS, private, algorithm="PS256", headers={"kid": "rsa"}),
        jwt.encode(CLAIMS, KEYS["one"], algorithm="ES256", headers={"kid": "rsa"}),
        jwt.encode(CLAIMS, "", algorithm="none", headers={"kid": "rsa"}),
        jwt.encode(CLAIMS, "secret-secret-secret-secret-secret", algorithm="HS256", headers={"kid": "shared"}),
        signed("two"),
        signed("two", "one"),
    ):
        assert refusal(tokens, token) in ("unauthorized", "keys_away")
    for token in (jwt.encode(CLAIMS, private, algorithm="RS256"), signed("one", "one")[:-4]):
        assert refusal(tokens, token) == "unauthorized"


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://idp.test/keys", True),
        ("http://127.0.0.1:8080/keys", True),
        ("http://[::1]/keys", True),
        ("http://localhost/keys", True),
        ("http://idp.test/keys", False),
        ("http://127.0.0.1.idp.test/keys", False),
        ("http://10.0.0.1/keys", False),
        ("file:///etc/passwd", False),
        ("https://", False),
        ("http://[::1/keys", False),
        ("keys.json", True),
    ],
)
def test_keys_come_by_https_or_from_this_machine(url: str, good: bool) -> None:
    assert (wrong_url(url) is None) is good
