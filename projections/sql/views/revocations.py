"""Revoked tokens, as a gateway's memory begins with them."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, select

from projections.sql.schema import revocations


class Revocation(NamedTuple):
    """The token with this id or, where it is empty, all tokens of `user` issued until `issued_until`. Times in ms."""

    token_id: str
    user: str | None
    issued_until: int
    until: int


def all_of(tx: Connection) -> list[Revocation]:
    """Every revocation that is kept."""
    c = revocations.c
    return [Revocation(*r) for r in tx.execute(select(c.token_id, c.user_id, c.issued_until, c.until))]
