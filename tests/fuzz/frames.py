"""Frames of any shape, and what RFC 6455 says a server has to make of them, written apart from every library."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from tests.fuzz.raw import BINARY, CLOSE, CONT, PING, PONG, TEXT, Frame

LARGEST = 64 * 1024  # bytes of a message: Limits.ws_message
PROTOCOL, INVALID, TOO_BIG, OWN = 1002, 1007, 1009, 0

_payloads = (
    *(b"", b"x", b'{"id":1,"ping":{}}', b"a" * 125, b"b" * 126, b"c" * 65_535, b"d" * 65_537),
    *(b"\xff", b"\xed\xa0\x80", b"\xf0\x9f", b"\x98\x80"),  # cut or forbidden UTF-8
    *(b"\x03\xe8", b"\x03", b"\x03\xed", b"\x00\x00", b"\x0f\xa0bye", b"\x03\xe8\xff"),  # close codes
)
frames = st.builds(
    Frame,
    st.sampled_from([TEXT, BINARY, CONT, CLOSE, PING, PONG]) | st.integers(0, 15),
    st.integers(0, len(_payloads) - 1).map(_payloads.__getitem__),
    st.booleans(),
    st.sampled_from([0, 0, 0, 0, 0, 1, 2, 4, 7]),
    st.sampled_from([True] * 9 + [False]),
)


def verdict(sent: Sequence[Frame]) -> set[int]:
    """The codes of which the server has to close with one; OWN is the client's. Empty if it goes on. Frames that came
    together may all be looked at before the first of them is read as text.
    """
    begun: list[bytes] = []
    message = 0  # the opcode of what has begun
    for at, frame in enumerate(sent, 1):
        control = frame.opcode >= CLOSE
        wrong = frame.rsv or frame.opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG) or not frame.masked
        wrong = wrong or (control and (not frame.fin or len(frame.payload) > 125))
        large = sum(map(len, begun)) + len(frame.payload) > LARGEST
        if wrong or large:
            return ({PROTOCOL} if wrong else set()) | ({TOO_BIG} if large else set())
        if frame.opcode == CLOSE:
            return {_closing(frame.payload, begun=bool(message))}
        if control:
            continue
        if (frame.opcode == CONT) != bool(message):
            return {PROTOCOL}
        message = message or frame.opcode
        begun.append(frame.payload)
        if frame.fin:
            if message == TEXT and not utf8(b"".join(begun)):
                return {INVALID} | verdict(sent[at:]) - {OWN}
            begun, message = [], 0
    return set()


def _closing(payload: bytes, *, begun: bool) -> int:
    if len(payload) == 1 or (payload and not _good_code(int.from_bytes(payload[:2]))):
        return PROTOCOL
    if not utf8(payload[2:]):
        return INVALID
    return PROTOCOL if begun else OWN


def _good_code(code: int) -> bool:
    return (1000 <= code <= 1014 and code not in (1004, 1005, 1006)) or 3000 <= code < 5000


def utf8(data: bytes) -> bool:
    """Whether it is text."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
