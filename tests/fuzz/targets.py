"""What reads the bytes of strangers, each as a function of bytes: it may refuse them in its documented way, and nothing
else. hypothesis throws at it what the tests allow time for, atheris (`make fuzz`) as much as it is given.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import orjson

from api.http.cursors import decode_cursor, decode_id, decode_place, encode_cursor, encode_id, encode_place
from api.http.requests import json_value
from api.live.entities import strict
from api.live.filters import BadFilter, parse
from api.live.frames import failure
from api.live.position import BadPosition, decode, encode
from api.live.protocol import BadFrame, client_frame
from api.notices.plain import plain_notice
from api.problems import Problem
from api.settings import Limits
from topics import codec
from topics.codec import Undecodable, UnknownSchema
from topics.json_text import joined, members
from wrapper.protocol import LINE_BYTES, LineSplitter, Rejected, TooLong
from wrapper.protocol import parse as line

BODIES: tuple[object, ...] = ({}, {"a": 1}, {"a": {"b": "x"}}, {"a": None}, {"a": [1.5, True]})
LIMITS = Limits()


def frame(data: bytes) -> None:
    """A text message of a WebSocket."""
    with contextlib.suppress(UnicodeDecodeError):
        try:
            assert client_frame(data.decode()).request is not None
        except BadFrame as bad:
            failure(bad.request_id, bad.problem.frame())


def filters(data: bytes) -> None:
    """A filter; what is accepted can be asked of any entity, and is bounded."""
    with contextlib.suppress(orjson.JSONDecodeError, BadFilter):
        found = parse(orjson.loads(data))
        assert len(found.name) <= 64 * 1024 + 10 * len(data)
        for body in BODIES:
            assert found.matches(body) in (True, False)


def position(data: bytes) -> None:
    """A token; what is accepted means the same when it is written again."""
    with contextlib.suppress(BadPosition, UnicodeDecodeError):
        found = decode(data.decode())
        assert all(n >= 0 for pair in found.next.items() for n in pair)
        assert decode(encode(found.epoch, found.next)) == found


def cursors(data: bytes) -> None:
    """Cursors of all lists; what is accepted fits into a database's number and means the same when written again."""
    with contextlib.suppress(UnicodeDecodeError):
        text = data.decode()
        with contextlib.suppress(Problem):
            at = decode_cursor(text)
            assert 0 <= at.raised_offset < 2**63
            assert decode_cursor(encode_cursor(at)) == at
        with contextlib.suppress(Problem):
            assert decode_id(encode_id(decode_id(text))) == decode_id(text)
        with contextlib.suppress(Problem):
            assert decode_place(encode_place(decode_place(text))) == decode_place(text)


def record(data: bytes) -> None:
    """A record's value; what is accepted can be written again, and reads the same."""
    with contextlib.suppress(Undecodable, UnknownSchema):
        found = codec.decode(data)
        assert codec.decode(codec.encode(found)) == found


def program_line(data: bytes) -> None:
    """What an alert program prints, however it is cut."""
    splitter = LineSplitter()
    lines = [text for at in range(0, len(data), 7) for text in splitter.feed(data[at : at + 7])]
    for text in (*lines, splitter.rest):
        assert isinstance(text, TooLong) or len(text) <= LINE_BYTES
        found = line(text)
        assert not isinstance(found, Rejected) or found.reason


def entity(data: bytes) -> None:
    """An entity's body from the log; what is kept is JSON that every browser reads."""
    with contextlib.suppress(UnicodeDecodeError, ValueError, RecursionError):
        assert isinstance(orjson.loads(strict(data.decode())), dict)


def notice(data: bytes) -> None:
    """A direct notice's body, on its short way."""
    with contextlib.suppress(UnicodeDecodeError):
        plain_notice(data.decode(), LIMITS)


def json_text(data: bytes) -> None:
    """An object cut into its members and joined again is the same object."""
    with contextlib.suppress(UnicodeDecodeError, Problem):
        text = data.decode()
        value = json_value(text)
        if isinstance(value, dict):
            assert json_value(joined(members(text))) == value


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each for each in (frame, filters, position, cursors, record, program_line, entity, notice, json_text)
}
