"""Ids of derived events: uuid5 of the question that the event answers, never of the answer.

A golden test freezes each recipe: a changed recipe would say everything again.
"""

from __future__ import annotations

import os
import uuid
from hashlib import sha1
from random import Random

NAMESPACE = uuid.UUID("b1f4a3c6-7c0d-5d53-9a52-3f3b5b0a2c11")
_NAMESPACE = NAMESPACE.bytes
_random = Random()  # noqa: S311 - seeded by the system, and no id is a secret: a system call for each costs more
os.register_at_fork(after_in_child=_random.seed)


def derived_id(question: str, *parts: str | int) -> str:
    """The id for the answer to `question` about `parts`; equal questions give equal ids in every process."""
    question = "\x1f".join((question, *map(str, parts)))
    named = bytearray(sha1(_NAMESPACE + question.encode(), usedforsecurity=False).digest()[:16])
    return _uuid(named, 0x50)  # what uuid.uuid5 does, at a fifth of its cost


def new_id() -> str:
    """An id for something that answers no question: a command, an entity change, a start."""
    return _uuid(bytearray(_random.randbytes(16)), 0x40)


def _uuid(octets: bytearray, version: int) -> str:
    octets[6], octets[8] = octets[6] & 0x0F | version, octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def alert_notice_id(alert: str, shard: int, run: int, number: int, index: int) -> str:
    """The notice that effect `index` of an alert's commit raises."""
    return derived_id("notice", alert, shard, run, number, index)


def direct_notice_id(subject: str, request_key: str, user: str) -> str:
    """The notice of a direct request for one user."""
    return derived_id("direct", subject, request_key, user)
