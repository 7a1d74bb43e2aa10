"""Whose token it is, what it may do, and why it is refused."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from api.access.revocations import FEW, Revocations
from api.access.tokens import Tokens, is_id, sign
from api.problems import Problem
from projections.sql.views.revocations import Revocation
from topics.events import TokenRevoked

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
        {"sub": "u", "jti": 7},
        {"sub": "u", "iat": "soon"},
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


def test_an_issuer_and_an_audience_are_asked_for_where_they_are_set() -> None:
    anyones = Tokens(SECRET, None)
    ours = Tokens(SECRET, None, issuer="idp", audience="tidings")
    for claims, good in (
        ({"iss": "idp", "aud": "tidings"}, True),
        ({"iss": "idp", "aud": ["other", "tidings"]}, True),
        ({"iss": "idp", "aud": "other"}, False),
        ({"iss": "other", "aud": "tidings"}, False),
        ({"aud": "tidings"}, False),
        ({"iss": "idp"}, False),
        ({}, False),
    ):
        token = sign(SECRET, "u1", ttl_s=60, **claims)
        assert anyones.identify(token).user == "u1"
        if good:
            assert ours.identify(token).user == "u1"
        else:
            assert refused(ours, token)


def test_a_revoked_token_is_refused_though_it_was_checked_before() -> None:
    tokens = Tokens(SECRET, None)
    at = 1_000 * (now := int(time.time()))
    given = {
        "named": sign(SECRET, "u1", ttl_s=60, jti="one", now=now),
        "newer": sign(SECRET, "u1", ttl_s=60, jti="two", now=now + 1.5),
        "undated": sign(SECRET, "u1", ttl_s=60, iat=0),
    }
    for token in given.values():
        assert tokens.identify(token) == tokens.known(token)
    by: dict[str, Any] = {"event_id": "e", "producer": "test", "occurred_at": 0, "until": at + 60_000}
    assert not tokens.revocations.take(None, at)
    assert tokens.revocations.take(TokenRevoked(**by, token_id="one"), at)
    assert tokens.known(given["named"]) is None
    assert refused(tokens, given["named"]) == "The token was revoked."
    assert tokens.known(given["undated"]) is not None
    assert tokens.revocations.take(TokenRevoked(**by, token_id="", user="u1", issued_until=at + 1_000), at)
    assert tokens.known(given["undated"]) is None
    assert tokens.known(given["newer"]) is not None
    # rows may be behind, and an older word takes nothing back
    tokens.revocations.load([Revocation("", "u1", 5, at), Revocation("two", None, 0, at)])
    assert tokens.known(given["newer"]) is None
    assert refused(tokens, given["undated"])
    # what has expired by itself is forgotten, sooner or later
    for number in range(FEW):
        tokens.revocations.take(TokenRevoked(**by, token_id=f"more {number}"), at + 60_001)
    assert tokens.identify(given["newer"]).token_id == "two"


def test_nobody_is_let_in_before_it_is_known_who_is_not() -> None:
    known: list[bool] = []
    tokens = Tokens(SECRET, None, revocations=Revocations(lambda: bool(known)))
    token = sign(SECRET, "u1", ttl_s=60)
    for _ in range(2):
        with pytest.raises(Problem) as told:
            tokens.identify(token)
        assert (told.value.code, told.value.retry) == ("not_ready", True)
    known.append(True)
    assert tokens.identify(token).user == "u1"
    known.clear()  # the reader begins anew: what was known is known
    assert tokens.identify(sign(SECRET, "u2", ttl_s=60)).user == "u2"


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


@pytest.mark.parametrize("claim", ["sub", "exp", "scope", "iat", "nbf", "jti", "aud", "filter"])
def test_well_signed_nonsense_is_taken_or_refused_and_breaks_nothing(claim: str) -> None:
    tokens = Tokens(SECRET, None)
    odd: list[Any] = [
        None,
        True,
        10**400,
        -(10**400),
        1e308,
        "",
        "1",
        "\0",
        [],
        [1],
        {},
        {"vm": 1},
        {"vm": {"op": "not"}},
    ]
    for value in odd:
        claims = {"sub": "u1", "exp": 4_000_000_000, "iat": 1, claim: value}
        signed = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256")
        with contextlib.suppress(Problem):
            assert tokens.identify(signed).user
