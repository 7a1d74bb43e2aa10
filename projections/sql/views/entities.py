"""All entities of a type, as the gateway's memory begins with them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from sqlalchemy import Connection, select

from projections.sql.schema import entities


class EntityRow(NamedTuple):
    """One entity as the rows hold it; `at` in ms, `body` its JSON text."""

    id: str
    partition: int
    offset: int
    version: int
    at: int
    body: str


def of_type(tx: Connection, entity_type: str) -> Iterator[EntityRow]:
    """Every entity of a type that is not deleted."""
    c = entities.c
    found = tx.execute(
        select(c.entity_id, c.partition, c.offset, c.version, c.at, c.body).where(
            c.entity_type == entity_type, c.op != "deleted"
        )
    )
    return (EntityRow(*r) for r in found)
