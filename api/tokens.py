"""Who is asking: JSON Web Tokens, checked by a shared secret (HS256) or by the public keys of a JWKS file.

`sub` is the user, `scope` what is allowed, `filter` per entity type what may be seen at all; every token has an end
(`exp`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from jwt.exceptions import InvalidTokenError, PyJWKSetError

from api.filters import BadFilter, Filter, parse
from api.problems import Problem
from topics.json_text import dumps

LONGEST = 8 * 1024
_PUBLIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_S = 10
REMEMBERED = 10_000  # tokens that were checked, the oldest forgotten first


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whose token holds until `expires_at` (seconds since 1970)."""

    user: str
    scopes: frozenset[str]
    expires_at: float
    filters: Mapping[str, Filter] = field(default_factory=dict)

    def may(self, scope: str) -> bool:
        """Whether the token has this scope; `entities:read:*` stands for all types."""
        return scope in self.scopes or f"{scope.rpartition(':')[0]}:*" in self.scopes

    def need(self, scope: str) -> None:
        """Problem `forbidden` without this scope."""
        if not self.may(scope):
            raise Problem("forbidden", f"This needs the scope {scope}.", scope=scope)


class Tokens:
    """Checks tokens. ValueError if neither or both of secret and JWKS file are given, or the file is none."""

    def __init__(self, secret: str | None, jwks: Path | None) -> None:
        if (secret is None) == (jwks is None):
            raise ValueError("tokens need either a secret or a JWKS file")
        self._secret = secret
        self._known: dict[str, Identity] = {}
        self._keys: dict[str | None, jwt.PyJWK] = {}
        if jwks is not None:
            try:
                keys = jwt.PyJWKSet.from_dict(json.loads(jwks.read_text())).keys
            except (OSError, ValueError, PyJWKSetError) as error:
                raise ValueError(f"{jwks} is no readable JWKS file: {error}") from error
            self._keys = {k.key_id: k for k in keys if k.key_type != "oct"}

    def identify(self, token: str) -> Identity:
        """Whose token this is. Problem `unauthorized`."""
        if (known := self.known(token)) is not None:
            return known
        if not token or len(token) > LONGEST:
            raise Problem("unauthorized", "There is no token, or it is too long.")
        try:
            claims = self._claims(token)
        except jwt.ExpiredSignatureError as error:
            raise Problem("unauthorized", "The token has expired.") from error
        except jwt.MissingRequiredClaimError as error:
            raise Problem("unauthorized", f"The token lacks {error.claim}.") from error
        except (InvalidTokenError, KeyError, ValueError) as error:
            raise Problem("unauthorized", "The token is not one that this gateway accepts.") from error
        identity = _identity(claims)
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[token] = identity
        return identity

    def known(self, token: str) -> Identity | None:
        """Whose token this is, if it was checked before and has not expired: its signature can't have changed."""
        identity = self._known.get(token)
        if identity is None or identity.expires_at + LEEWAY_S > time.time():
            return identity
        del self._known[token]
        return None

    def _claims(self, token: str) -> dict[str, Any]:
        options: Any = {"require": ["sub", "exp"], "verify_aud": False}
        given: Any = self._secret
        algorithms = ["HS256"]
        if given is None:
            kid, algorithms = jwt.get_unverified_header(token).get("kid"), _PUBLIC
            given = self._keys[kid] if kid in self._keys or len(self._keys) != 1 else next(iter(self._keys.values()))
        claims: dict[str, Any] = jwt.decode(token, given, algorithms=algorithms, options=options, leeway=LEEWAY_S)
        return claims


def sign(
    secret: str,
    user: str,
    scopes: Iterable[str] = (),
    *,
    ttl_s: float,
    filters: Mapping[str, Any] | None = None,
    now: float | None = None,
) -> str:
    """A token of ours for `user`, good for `ttl_s` seconds."""
    at = int(time.time() if now is None else now)
    claims: dict[str, Any] = {"sub": user, "scope": list(scopes), "iat": at, "exp": at + int(ttl_s)}
    if filters:
        claims["filter"] = dict(filters)
    return jwt.encode(claims, secret, algorithm="HS256")


def _identity(claims: dict[str, Any]) -> Identity:
    user, scope, given = claims["sub"], claims.get("scope", []), claims.get("filter", {})
    scopes = scope.split() if isinstance(scope, str) else scope
    if (
        not isinstance(user, str)
        or not is_id(user)
        or not isinstance(scopes, list)
        or not all(isinstance(s, str) for s in scopes)
    ):
        raise Problem("unauthorized", "The token's `sub` or `scope` is not as it should be.")
    if not isinstance(given, dict) or "*" in given:  # filters are by entity type, and none is passed over
        raise Problem("unauthorized", "The token's `filter` is not as it should be.")
    try:
        filters = {entity_type: _enforced(f) for entity_type, f in given.items()}
    except BadFilter as error:
        raise Problem("unauthorized", f"The token's `filter` is not as it should be: {error}.") from error
    return Identity(user, frozenset(scopes), float(claims["exp"]), filters)


def _enforced(given: Any) -> Filter:
    found = parse(given)
    return Filter(f"token:{dumps(given)}", found.matches)


def is_id(text: str) -> bool:
    """Ids of users, entities and things: 1 to 200 characters, no control characters."""
    return 1 <= len(text) <= 200 and not any(
        c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in text
    )
