"""Positions as clients hold them: opaque tokens of the log's epoch and the next offset of some of a topic's partitions.

A token belongs to one topic of one log: another topic's, or one of a log that was made anew, is recognised and refused.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = 1
EPOCH_BYTES = 6
LONGEST = 4_096
_URL_SAFE = bytes.maketrans(b"+/", b"-_")


class BadPosition(ValueError):
    """Not a token of ours."""


@dataclass(frozen=True, slots=True)
class Position:
    """`epoch` names topic and log; `next` maps partitions to the offset that is to be read next."""

    epoch: bytes
    next: dict[int, int]


def epoch_of(topic: str, opened: Mapping[int, str]) -> bytes:
    """The short name of a topic of one log, from the ids of its partitions' TopicOpened."""
    text = "\n".join((topic, *(f"{p}:{opened[p]}" for p in sorted(opened))))
    return hashlib.blake2b(text.encode(), digest_size=EPOCH_BYTES).digest()


def encode(epoch: bytes, following: Mapping[int, int]) -> str:
    """The token."""
    out = bytearray((VERSION, *epoch))
    for partition in sorted(following) if len(following) > 1 else following:
        for number in (partition, following[partition]):
            left = number
            while left > 0x7F:
                out.append(left & 0x7F | 0x80)
                left >>= 7
            out.append(left)
    return binascii.b2a_base64(out, newline=False).translate(_URL_SAFE).rstrip(b"=").decode()


def decode(token: str) -> Position:
    """The position in a token. BadPosition."""
    if len(token) > LONGEST:
        raise BadPosition("a position is a short text")
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadPosition("not base64url") from error
    if len(raw) < 1 + EPOCH_BYTES or raw[0] != VERSION:
        raise BadPosition("not a position of this version")
    numbers, value, shift = [], 0, 0
    for byte in raw[1 + EPOCH_BYTES :]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            numbers.append(value)
            value = shift = 0
        elif shift > 63:
            raise BadPosition("a number is too long")
    if shift or len(numbers) % 2:
        raise BadPosition("cut off")
    return Position(raw[1 : 1 + EPOCH_BYTES], dict(zip(numbers[::2], numbers[1::2], strict=True)))
