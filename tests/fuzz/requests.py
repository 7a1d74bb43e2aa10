"""Commands and HTTP requests of any shape: nearly right, quite wrong, and such as two servers read in two ways."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.profile import mutated
from tests.fuzz.seeds import COMMANDS, NUL, RIGHT, TOKEN
from tests.integration.gateway_process import token

# ---- commands
scalars: Any = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "a", "\x00", "😀", "\x7f", TOKEN, "z" * 5_000])
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3), max_leaves=6
)
_keys = st.sampled_from(["n", "a.b", "", "x" * 201, ".", "\x00", "😀"])
_operators = st.sampled_from(["eq", "ne", "lt", "in", "prefix", "exists", "and", "or", "not", "like"])
_leaves = st.fixed_dictionaries({"key": _keys | values, "op": _operators}, optional={"val": values, "nodes": values})
_filters = st.recursive(
    _leaves | values,
    lambda f: st.fixed_dictionaries({"op": _operators, "nodes": st.lists(f, max_size=4)}),
    max_leaves=12,
)
_deep = st.builds(  # at the limit of depth, and over it
    lambda n, leaf: json.loads('{"op":"not","nodes":[' * n + json.dumps(leaf) + "]}" * n), st.integers(6, 9), _leaves
)
_wide = st.builds(lambda n: {"op": "or", "nodes": [{"key": "a", "op": "exists"}] * n}, st.integers(62, 65))
_channels = st.sampled_from(["entities/vm", "entities/task", "inbox", "entities/", ""])
_subscribe = st.fixed_dictionaries(
    {"channel": _channels | scalars},
    optional={"filter": _filters | _deep | _wide, "snapshot": values, "since": scalars, "expand": values},
)
_mark = st.fixed_dictionaries(
    {"cmd": scalars, "as": st.sampled_from(["seen", "read", "snoozed"]) | scalars},
    optional={"ids": st.lists(scalars, max_size=3), "all": values, "up_to": scalars, "until": scalars},
)
_commands = st.fixed_dictionaries(
    {"id": st.integers(0, 9) | scalars},
    optional={
        "auth": st.fixed_dictionaries({"token": scalars}) | values,
        "subscribe": _subscribe | values,
        "unsubscribe": st.fixed_dictionaries({"channel": _channels | scalars}),
        "mark": _mark,
        "ping": st.just({}) | values,
        "pong": values,
    },
)
commands = st.builds(lambda r: json.dumps(r).encode(), _commands) | mutated(tuple(c.encode() for c in COMMANDS))

# ---- HTTP
_methods = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "G\x00T", "PRI", "post")
_paths = (
    *("/v1/entities/vm/a", "/v1/entities/vm", "/v1/notices", "/v1/notices/mark", "/v1/notices/resolve", "/v1/me"),
    *("/v1/alert-configs", "/v1/alert-configs/x", "/v1/recipients/x", "/v1/preferences", "/v1/silences", "/v1/ws"),
    *("/v1/sse?channel=entities/vm", "/v1/sse?channel=inbox", "/v1/sse?channel=entities/vm&access_token=x.y.z"),
    *("/healthz", "/openapi.json", "/", "//", "/%00", "/%ff", "/v1/entities/vm/%00", "*", "x", "/?\x00"),
)
_names = (
    "channel",
    "snapshot",
    "since",
    "expand",
    "at_least",
    "cursor",
    "limit",
    "filter",
    "q",
    "name",
    "state",
    "user",
    "until",
    "since",
    "as_of",
    "channel",
)
_given = ("", "%00", "%ff", "0", "-1", "9" * 30, TOKEN, "WyJcdTAwMDAiXQ", "WzEsIlx1MDAwMCJd", "%7B%7D")
_queries = st.lists(st.builds("{}={}".format, st.sampled_from(_names), st.sampled_from(_given)), max_size=2)
_lengths = ("0", "5", "+5", "-1", "5, 5", "0x5", "9" * 30, " 5", "5\r\ncontent-length: 6", "1e3", "")
_headers = (
    *(f"content-length: {length}" for length in _lengths),
    *("transfer-encoding: chunked", "transfer-encoding: x, chunked", "transfer-encoding : chunked"),
    *("content-type: application/x-ndjson", 'if-match: "v1"', "if-match: *", "idempotency-key: \x00"),
    *(f"last-event-id: {TOKEN}", "last-event-id: x", "origin: https://evil.test", "origin: http://["),
    *("expect: 100-continue", "connection: close", "connection: upgrade", "upgrade: websocket"),
    *(" folded: x", "no colon", "x: \x00", "x: \xff", "host: a\r\nhost: b", "x: " + "y" * 70_000),
)
_chunked = (
    b"0\r\n\r\n",
    b"5\r\n{}   \r\n0\r\n\r\n",
    b"fffffffffffffffff\r\n",
    b"-1\r\n",
    b"2;a=b\r\n{}\r\n0\r\nx: y\r\n\r\n",
)
_bodies = st.one_of(
    st.sampled_from([b"", b"{}", b"[]", *_chunked, *NUL]),
    st.builds(lambda v: json.dumps(v).encode(), values),
    mutated(RIGHT),
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One request; in half of them the length is right, whatever else is not, and half have no odd headers."""
    body, query = draw(_bodies), "&".join(draw(_queries))
    path = draw(st.sampled_from(_paths))
    target = f"{path}{'&' if '?' in path else '?'}{query}" if query else path
    lines = [f"{draw(st.sampled_from(_methods))} {target} HTTP/1.1"]
    lines += ["host: localhost", f"authorization: Bearer {token()}"]
    lines += draw(st.just([]) | st.lists(st.sampled_from(_headers), max_size=4))  # most of these are no HTTP at all
    lines += draw(st.sampled_from([[], [f"content-length: {len(body)}"]]))
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def smuggled(hidden: bytes) -> list[tuple[str, bytes]]:
    """(headers, body) in which one reader sees `hidden` as a body, and another one as the next request."""
    size = len(hidden)
    return [
        ("content-length: 5\r\ntransfer-encoding: chunked", b"0\r\n\r\n" + hidden),
        ("transfer-encoding: chunked\r\ncontent-length: 5", b"0\r\n\r\n" + hidden),
        (f"transfer-encoding: xchunked\r\ncontent-length: {size}", hidden),
        (f"transfer-encoding : chunked\r\ncontent-length: {size}", hidden),
        (f"transfer-encoding:\x0bchunked\r\ncontent-length: {size}", hidden),
        (f"content-length: {size}\r\ncontent-length: 0", hidden),
        (f"content-length: 0\r\ncontent-length: {size}", hidden),
        ("content-length: +0", hidden),
        (f"content-length: {size}", hidden),
        ("transfer-encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (size, hidden)),
        ("transfer-encoding: chunked", b"0;\n" + hidden),
        ("transfer-encoding: chunked", b"1\r\nxx" + hidden),
    ]
