"""Bytes, commands and requests of strangers against a real gateway: the documented error or close code and nothing
else, while another client is served.
"""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from api.problems import CODES
from tests.fuzz.conftest import Attacked
from tests.fuzz.frames import OWN, TOO_BIG, frames, utf8, verdict
from tests.fuzz.profile import profile
from tests.fuzz.raw import CLOSE, CONT, PING, TEXT, Frame, Peer, cut
from tests.fuzz.requests import commands, requests, smuggled
from tests.integration.gateway_process import token

REFUSALS = frozenset(CODES) - {"internal"}
BAD_FRAMES = 4400
places = st.lists(st.integers(0, 1 << 17), max_size=3)


@profile(250)
@given(st.lists(frames, min_size=1, max_size=6), places)
@example([Frame(TEXT, b"\xff\xfe")], [])
@example([Frame(PING, b"x" * 125)] * 2_000, [5])
@example([Frame(TEXT, b"{}")] * 1_000, [5])
def test_frames_of_any_shape(attacked: Attacked, sent: list[Frame], places: list[int]) -> None:
    with Peer(attacked.gateway.port) as peer:
        peer.shake_hands(token())
        for piece in cut(b"".join(f.encoded() for f in sent), places):
            if not peer.send(piece):
                break
        peer.finish()
        codes = [int.from_bytes(data[:2]) if data else 1005 for opcode, data in peer.frames() if opcode == CLOSE]
    attacked.unharmed()
    expected = verdict(sent)
    if expected == {OWN}:
        expected = {int.from_bytes(f.payload[:2]) if f.payload else 1005 for f in sent if f.opcode == CLOSE}
    assert len(codes) <= 1
    assert set(codes) <= expected | {BAD_FRAMES}


def test_a_message_that_never_ends_is_refused(attacked: Attacked) -> None:
    announced = Frame(TEXT, b"{", length=2**63 - 1).encoded()
    pieces = Frame(TEXT, b"", fin=False).encoded() + Frame(CONT, b"", fin=False).encoded() * 5_000
    for endless in (announced, pieces):
        with Peer(attacked.gateway.port) as peer:
            peer.shake_hands(token())
            peer.send(endless)
            assert [int.from_bytes(data[:2]) for opcode, data in peer.frames() if opcode == CLOSE] == [TOO_BIG]
    attacked.unharmed()


@profile(120)
@given(st.lists(commands, min_size=1, max_size=8))
@example([b'{"id":1,"subscribe":{"channel":"inbox"}}', b'{"id":2,"unsubscribe":{"channel":"inbox"}}'])
@example([b'{"id":1,"mark":{"cmd":"a","as":"read","ids":["\\u0000"]}}'])
def test_every_command_has_its_answer(attacked: Attacked, sent: list[bytes]) -> None:
    readable = [text for text in sent if utf8(text)]
    with Peer(attacked.gateway.port) as peer:
        peer.shake_hands(token())
        for text in readable:
            peer.send(Frame(TEXT, text).encoded())
        found = peer.answers(len(readable))
    attacked.unharmed()
    assert len(found) == len(readable)
    for frame in found:
        assert "ok" in frame or (frame["error"]["code"] in REFUSALS and frame["error"]["message"]), frame


@profile(500)
@given(requests(), places)
def test_requests_of_any_shape(attacked: Attacked, sent: bytes, places: list[int]) -> None:
    with Peer(attacked.gateway.port) as peer:
        for piece in cut(sent, places):
            if not peer.send(piece):
                break
        peer.finish()
        said = peer.rest()
    attacked.unharmed()
    for status, told in answers(said):
        assert allowed(status, told), (status, told)


def test_what_is_hidden_in_a_body_is_not_a_request(attacked: Attacked) -> None:
    signed = f"host: a\r\nauthorization: Bearer {token()}\r\n"
    hidden = f"PUT /v1/entities/vm/smuggled HTTP/1.1\r\n{signed}content-length: 2\r\n\r\n{{}}".encode()
    for named, body in smuggled(hidden):
        with Peer(attacked.gateway.port) as peer:
            peer.send(f"POST /v1/notices HTTP/1.1\r\n{signed}{named}\r\n\r\n".encode("latin-1") + body)
            peer.finish()
            found = answers(peer.rest())
        assert len(found) <= 1, (named, found)
        assert all(400 <= status < 500 for status, _ in found), (named, found)
    assert "smuggled" not in attacked.told()


def answers(data: bytes) -> list[tuple[int, bytes]]:
    """(status, body) of each answer in what a server said."""
    found: list[tuple[int, bytes]] = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        line, *named = head.split(b"\r\n")
        status = int(line.split()[1])
        fields = {n.lower(): v.strip() for n, _, v in (h.partition(b":") for h in named)}
        if status == 101 or b"event-stream" in fields.get(b"content-type", b""):
            return [*found, (status, b"")]
        size = int(fields.get(b"content-length", b"0"))
        found.append((status, data[:size]))
        data = data[size:]
    return found


def allowed(status: int, body: bytes) -> bool:
    """Whether it is a documented answer; refused by a code where it is refused by the application."""
    if status < 400:
        return True
    if not body.startswith(b"{"):
        return status in (400, 403, 405, 426) or not body  # the parsers' own refusals, and what HEAD is answered
    told = json.loads(body)
    return told["code"] in REFUSALS and CODES[told["code"]][0] == status
