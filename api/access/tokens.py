"""Who is asking: JSON Web Tokens, checked by a shared secret (HS256) or by public keys (JWKS).

`sub` is the user, `scope` what is allowed, `filter` per entity type what may be seen at all; every token has an end
(`exp`), and may have a name (`jti`) by which it can be revoked before.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from jwt.exceptions import InvalidTokenError

from api.access.jwks import KeySet
from api.access.revocations import Revocations
from api.live.filters import BadFilter, Filter, parse
from api.problems import Problem
from topics.json_text import dumps

LONGEST = 8 * 1024
_PUBLIC = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
LEEWAY_S = 10
REMEMBERED = 10_000  # tokens that were checked, the oldest forgotten first
_ID = re.compile("[^\x00-\x1f\x7f-\x9f\ud800-\udfff]{1,200}")


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody whose token holds until `expires_at` (seconds since 1970); `issued_at` is 0 where it does not say."""

    user: str
    scopes: frozenset[str]
    expires_at: float
    filters: Mapping[str, Filter] = field(default_factory=dict)
    token_id: str = ""
    issued_at: float = 0.0
    token: str = field(default="", repr=False, compare=False)  # itself, for backends that are asked in somebody's name

    def may(self, scope: str) -> bool:
        """Whether the token has this scope; `entities:read:*` stands for all types."""
        return scope in self.scopes or f"{scope.rpartition(':')[0]}:*" in self.scopes

    def need(self, scope: str) -> None:
        """Problem `forbidden` without this scope."""
        if not self.may(scope):
            raise Problem("forbidden", f"This needs the scope {scope}.", scope=scope)


class Tokens:
    """Checks tokens. With `issuer` or `audience` a token has to name them. ValueError if neither or both of secret and
    JWKS (a path or a URL) are given, or the JWKS can't be right.
    """

    def __init__(
        self,
        secret: str | None,
        jwks: str | None,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        if (secret is None) == (jwks is None):
            raise ValueError("tokens need either a secret or a JWKS file")
        self._secret, self._issuer, self._audience = secret, issuer, audience
        self._known: dict[str, Identity] = {}
        self.keys = KeySet(jwks, self._known.clear) if jwks is not None else None
        self.revocations = revocations or Revocations()

    def identify(self, token: str) -> Identity:
        """Whose token this is. Problem `unauthorized`; `not_ready` or `keys_away` while that can't be said."""
        if (known := self.known(token)) is not None:
            return known
        if not token or len(token) > LONGEST:
            raise Problem("unauthorized", "There is no token, or it is too long.")
        if not self.revocations.complete:
            raise Problem("not_ready")
        try:
            identity = _identity(token, self._claims(token))
        except jwt.ExpiredSignatureError as error:
            raise Problem("unauthorized", "The token has expired.") from error
        except (jwt.InvalidIssuerError, jwt.InvalidAudienceError) as error:
            raise Problem("unauthorized", "The token is by another issuer, or meant for others.") from error
        except jwt.MissingRequiredClaimError as error:
            raise Problem("unauthorized", f"The token lacks {error.claim}.") from error
        except (InvalidTokenError, KeyError, ValueError, OverflowError) as error:
            raise Problem("unauthorized", "The token is not one that this gateway accepts.") from error
        if self.revocations.refuse(identity):
            raise Problem("unauthorized", "The token was revoked.")
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[token] = identity
        return identity

    def known(self, token: str) -> Identity | None:
        """Whose token this is, if it was checked before, has not expired and was not revoked since."""
        identity = self._known.get(token)
        if identity is None:
            return None
        if identity.expires_at + LEEWAY_S > time.time() and not self.revocations.refuse(identity):
            return identity
        del self._known[token]
        return None

    def _claims(self, token: str) -> dict[str, Any]:
        given: Any = self._secret
        algorithms = ["HS256"]
        if self.keys is not None:
            given, algorithms = self.keys.key(jwt.get_unverified_header(token).get("kid")), _PUBLIC
        options: Any = {"require": ["sub", "exp"], "verify_aud": self._audience is not None}
        claims: dict[str, Any] = jwt.decode(
            token,
            given,
            algorithms=algorithms,
            options=options,
            leeway=LEEWAY_S,
            issuer=self._issuer,
            audience=self._audience,
        )
        return claims


def sign(
    secret: str,
    user: str,
    scopes: Iterable[str] = (),
    *,
    ttl_s: float,
    filters: Mapping[str, Any] | None = None,
    now: float | None = None,
    **more: Any,
) -> str:
    """A token of ours for `user`, good for `ttl_s` seconds; `more` are further claims."""
    at = round(time.time() if now is None else now, 3)
    claims: dict[str, Any] = {"sub": user, "scope": list(scopes), "iat": at, "exp": int(at) + int(ttl_s)}
    claims |= {"jti": str(uuid.uuid4())} | more
    if filters:
        claims["filter"] = dict(filters)
    return jwt.encode(claims, secret, algorithm="HS256")


def _identity(token: str, claims: dict[str, Any]) -> Identity:
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
    named, issued_at = claims.get("jti", ""), float(claims.get("iat", 0))
    return Identity(user, frozenset(scopes), float(claims["exp"]), filters, named, issued_at, token)


def _enforced(given: Any) -> Filter:
    found = parse(given)
    return Filter(f"token:{dumps(given)}", found.matches)


def is_id(text: str) -> bool:
    """Ids of users, entities and things: 1 to 200 characters, no control characters."""
    return _ID.fullmatch(text) is not None
