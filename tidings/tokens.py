"""Tokens that the command line and `up` sign, and what they allow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from api.access.tokens import sign

SIGN_IN_TTL_S = 30 * 86_400.0
DEMO_TTL_S = 365 * 86_400.0
SCOPES_OF_A_USER = ("entities:read:*",)
SCOPES_OF_A_SERVICE = ("entities:write:*", "notices:write")


def sign_in_token(secret: str, user: str, **claims: Any) -> str:
    """For the person at this machine: everything."""
    scopes = ("entities:read:*", "entities:write:*", "notices:write", "configs", "recipients", "audit", "tokens")
    return sign(secret, user, scopes, ttl_s=SIGN_IN_TTL_S, **claims)


def service_token(secret: str, name: str, scopes: Iterable[str], ttl_s: float, **claims: Any) -> str:
    """For a program."""
    return sign(secret, name, scopes, ttl_s=ttl_s, **claims)
