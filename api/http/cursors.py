"""Cursors of lists: opaque to clients, short, and checked when they come back."""

from __future__ import annotations

import base64
import binascii

import orjson

from api.problems import Problem
from projections.sql.views.notices import Cursor
from topics.read import At

LONGEST = 1_000


def encode_cursor(at: Cursor) -> str:
    """Where a page of notices ended."""
    return _encode([at.raised_offset, at.notice_id])


def decode_cursor(text: str) -> Cursor:
    """As given by `encode_cursor`. Problem `bad_cursor`."""
    match _decode(text):
        case [int(offset), str(notice_id)] if 0 <= offset < 2**63:  # more no database takes
            return Cursor(offset, notice_id)
    raise Problem("bad_cursor")


def encode_id(last: str) -> str:
    """Where a page in the order of ids ended."""
    return _encode([last])


def decode_id(text: str) -> str:
    """As given by `encode_id`. Problem `bad_cursor`."""
    match _decode(text):
        case [str(last)]:
            return last
    raise Problem("bad_cursor")


def encode_place(at: At) -> str:
    """Where a page of history ended."""
    return _encode(list(at))


def decode_place(text: str) -> At:
    """As given by `encode_place`. Problem `bad_cursor`."""
    match _decode(text):
        case [int(time), str(topic), int(partition), int(offset)] if all(0 <= n < 2**62 for n in (time, offset)):
            return At(time, topic, partition, offset)
    raise Problem("bad_cursor")


def _encode(value: list[object]) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


def _decode(text: str) -> object:
    try:
        if len(text) > LONGEST:
            raise Problem("bad_cursor")
        found: object = orjson.loads(base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError) as error:
        raise Problem("bad_cursor") from error
    return found
