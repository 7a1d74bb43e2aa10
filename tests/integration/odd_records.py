"""Records that strangers might write: events in the wrong place, for somebody else, with values that nobody would give,
or with bytes changed. Their schema is always a known one: what comes by an unknown one is waited for.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from tests.fuzz.seeds import SEEDS
from topics.codec import HEAD, decode, encode
from topics.events import Event, TokenRevoked

_texts = ("", "u1", "u2", "x" * 300, "vm", "\x7f", "a/b")
_bodies = (b"", b"\xff", b"{", b'{"title":1}', b"[]", b'{"a":NaN}', b"1" * 400, b"null", b'{"a":"\\ud800"}')


def odd(dice: random.Random) -> bytes:
    """The value of one; never one that revokes somebody's token."""
    data = dice.choice(SEEDS["record"])
    event = decode(data)
    if isinstance(event, TokenRevoked):
        return b""
    if dice.random() < 0.6:
        try:
            return encode(_bent(event, dice))
        except (ValueError, TypeError, OverflowError, AttributeError):  # whatever the encoder says to such values
            return data
    broken = bytearray(data)
    for _ in range(dice.randrange(1, 4)):
        broken[dice.randrange(HEAD, len(broken))] = dice.randrange(256)
    return bytes(broken[: dice.choice((len(broken), len(broken), dice.randrange(HEAD, len(broken))))])


def _bent(event: Event, dice: random.Random) -> Event:
    return dataclasses.replace(
        event, **{f.name: _other(f.name, getattr(event, f.name), dice) for f in dataclasses.fields(event)}
    )


def _other(name: str, value: Any, dice: random.Random) -> Any:
    named = {"user": ("u1", "u1", "u2"), "entity_id": ("e1", "e2"), "notice_id": ("n1", "n2")}
    if name in named and dice.random() < 0.7:
        return dice.choice(named[name])
    if dice.random() < 0.7 or value is None:
        return value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return dice.choice((0, -1, 1, 2**62, -(2**62)))
    if isinstance(value, str):
        return dice.choice(_texts)
    return dice.choice(_bodies) if isinstance(value, bytes) else value * dice.randrange(4)
