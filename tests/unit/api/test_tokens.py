"""Whose token it is, what it may do, and why it is refused."""

import json
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from api.problems import Problem
from api.tokens import Tokens, is_id, sign

SECRET = "a secret of the tests, long enough for HS256"


def refused(tokens: Tokens, token: str) -> str:
    with pytest.raises(Problem) as told:
        tokens.identify(token)
    assert told.value.code == "unauthorized"
    return told.value.detail


def test_a_token_says_who_and_what() -> None:
    given = sign(
        SECRET, "u1", ["entities:read:vm", "configs"], ttl_s=60, filters={"vm": {"key": "a", "op": "eq", "val": 7}}
    )
    found = Tokens(SECRET, None).identify(given)
    assert found.user == "u1"
    assert found.may("configs")
    assert found.may("entities:read:vm")
    assert not found.may("entities:read:task")
    assert not found.may("entities:write:vm")
    assert found.filters["vm"].matches({"a": 7})
    assert not found.filters["vm"].matches({"a": 8})
    with pytest.raises(Problem) as told:
        found.need("audit")
    assert (told.value.status, told.value.code) == (403, "forbidden")


def test_a_star_stands_for_all_types() -> None:
    found = Tokens(SECRET, None).identify(sign(SECRET, "u1", ["entities:read:*"], ttl_s=60))
    assert found.may("entities:read:anything")
    assert not found.may("entities:write:anything")


def test_what_is_not_ours_is_refused_with_a_reason() -> None:
    tokens = Tokens(SECRET, None)
    assert "expired" in refused(tokens, sign(SECRET, "u1", ttl_s=60, now=1_000))
    assert "exp" in refused(tokens, jwt.encode({"sub": "u1"}, SECRET))
    assert "not one" in refused(tokens, sign("another secret that is long enough too", "u1", ttl_s=60))
    assert "not one" in refused(tokens, jwt.encode({"sub": "u1", "exp": 2**33}, "", algorithm="none"))
    assert refused(tokens, "")
    assert refused(tokens, "x" * 20_000)
    assert refused(tokens, "a.b.c")
    for wrong in (
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": "u", "scope": 7},
        {"sub": "u", "scope": [7]},
        {"sub": "u", "filter": {"vm": {}}},
    ):
        assert refused(tokens, jwt.encode({"exp": 2**33, **wrong}, SECRET))


def test_scopes_may_be_one_text() -> None:
    token = jwt.encode({"sub": "u", "exp": 2**33, "scope": "configs recipients"}, SECRET)
    assert Tokens(SECRET, None).identify(token).scopes == {"configs", "recipients"}


def test_a_jwks_file_checks_by_key_and_never_by_a_shared_secret(tmp_path: Path) -> None:
    one, two = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    keys: list[dict[str, Any]] = [
        {**json.loads(jwt.algorithms.ECAlgorithm.to_jwk(one.public_key())), "kid": "one", "alg": "ES256"},
        {**json.loads(jwt.algorithms.OKPAlgorithm.to_jwk(two.public_key())), "kid": "two", "alg": "EdDSA"},
    ]
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": keys}))
    tokens = Tokens(None, str(file))
    claims = {"sub": "u1", "exp": 2**33}
    assert tokens.identify(jwt.encode(claims, one, algorithm="ES256", headers={"kid": "one"})).user == "u1"
    assert tokens.identify(jwt.encode(claims, two, algorithm="EdDSA", headers={"kid": "two"})).user == "u1"
    assert refused(tokens, jwt.encode(claims, one, algorithm="ES256", headers={"kid": "two"}))
    assert refused(tokens, jwt.encode(claims, one, algorithm="ES256"))
    assert refused(tokens, jwt.encode(claims, SECRET, headers={"kid": "one"}))


def test_settings_that_can_not_be_right_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="either"):
        Tokens(None, None)
    with pytest.raises(ValueError, match="either"):
        Tokens(SECRET, str(tmp_path))
    with pytest.raises(ValueError, match="JWKS"):
        Tokens(None, str(tmp_path / "missing.json"))


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("u1", True),
        ("ä b/😀", True),
        ("", False),
        ("x" * 201, False),
        ("a\0", False),
        ("\ud800", False),
        ("\x85", False),
    ],
)
def test_ids(text: str, good: bool) -> None:
    assert is_id(text) is good
