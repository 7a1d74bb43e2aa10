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
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
os.register_at_fork(after_in_child=_random.seed)


def derived_id(question: str, *parts: str | int) -> str:
    """The id for the answer to `question` about `parts`; equal questions give equal ids in every process."""
    question = "\x1f".join((question, *map(str, parts)))
    return _uuid(sha1(_NAMESPACE + question.encode(), usedforsecurity=False).hexdigest(), "5")  # as uuid.uuid5


def new_id() -> str:
    """An id for something that answers no question: a command, an entity change, a start."""
    return _uuid(_random.randbytes(16).hex(), "4")


def _uuid(digits: str, version: str) -> str:
    """The first 128 bits of these, with a version's marks (RFC 9562): a fifth of what `uuid` takes for it."""
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def alert_notice_id(alert: str, shard: int, run: int, number: int, index: int) -> str:
    """The notice that effect `index` of an alert's commit raises."""
    return derived_id("notice", alert, shard, run, number, index)


def direct_notice_id(subject: str, request_key: str, user: str) -> str:
    """The notice of a direct request for one user."""
    return derived_id("direct", subject, request_key, user)
