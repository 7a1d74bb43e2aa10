"""What each target is first shown: a few right inputs, from which the mutations go out."""

from __future__ import annotations

import base64
import json

from api.http.cursors import encode_cursor, encode_id, encode_place
from api.live.position import encode
from projections.sql.views.notices import Cursor
from tests.contract.test_schemas import EXAMPLES, from_example
from topics import codec
from topics.read import At

DEEP = 2_000
TOKEN = encode(b"epoch!", {0: 3, 1: 2**40})
COMMANDS = (
    '{"id":1,"auth":{"token":"a.b.c"}}',
    '{"id":"x","subscribe":{"channel":"entities/vm","filter":{"key":"n","op":"eq","val":7},"snapshot":true}}',
    '{"id":2,"subscribe":{"channel":"inbox","since":"' + TOKEN + '"}}',
    '{"id":3,"unsubscribe":{"channel":"inbox"}}',
    '{"id":4,"mark":{"cmd":"c","ids":["a","b"],"as":"snoozed","until":"2030-01-31T08:00:00Z"}}',
    '{"id":5,"mark":{"cmd":"c","all":true,"up_to":"' + TOKEN + '","as":"read"}}',
    '{"id":6,"ping":{}}',
    '{"id":1e400,"ping":{}}',
    '{"id":"\\ud800","ping":{}}',
    '{"id":' + "9" * 400 + "}",
    '{"id":7,"id":[],"ping":{},"ping":{}}',
    '{"id":8,"subscribe":' + "[" * DEEP,
)
FILTERS = (
    '{"key":"a.b","op":"in","val":[1,"x",null,true,1.5]}',
    '{"op":"and","nodes":[{"key":"a","op":"exists","val":false},{"op":"not","nodes":[{"key":"a","op":"lt","val":1}]}]}',
    '{"key":"a","op":"prefix","val":"\\u0000"}',
    '{"op":"not","nodes":[' * 100 + '{"key":"a","op":"eq","val":1e308}' + "]}" * 100,
)
PRINTED = (
    '{"type":"hello","v":1,"tick_s":1.5,"wants":["x"],"state":"drop"}\n',
    '{"type":"notice","key":"k","config":"c","title":"t","data":{"a":1.10},"to":{"inbox":["u"]}}\nstray\r\n',
    '{"type":"done","seq":1,"state":{"a":"\\ud800"}}\n{"type":"done","seq":1e400}\n{"type":NaN}\n',
)
BODIES = (
    '{"a":1.10,"a":NaN,"b":"\\ud800","c":[1e400,null]}',
    '{"to":["u1"],"title":"t","data":{"a":1},"entity":{"type":"vm","id":"1"},"link":"https://example.test/"}',
    '{"a":' * DEEP,
    "[" + "9" * 5_000 + "]",
)
RIGHT = (
    b'{"to":["u1"],"title":"t","key":"k","data":{"a":1},"forward_after":5,"channel":{"email":["u1"]}}',
    b'{"name":"n","metric":{"a":1.10},"channel":{"inbox":["u1"]},"enabled":true,"forward":{"digest":"5m"}}',
    b'{"ids":["a"],"as":"read","cmd":"c"}',
    b'{"all":true,"up_to":"' + TOKEN.encode() + b'","as":"seen"}',
    b'{"quiet":[{"days":[1],"from":"22:00","to":"07:00"}],"alerts":{"a":{"email":false}}}',
    b'{"name":"Ann","addresses":{"email":"a@example.test"},"locale":"en","time_zone":"Europe/Berlin"}',
    b'{"alert":"a","until":"2030-01-01T00:00:00Z"}',
)
NUL = (  # and halves of characters: what databases and UTF-8 refuse
    rb'{"to":["u1"],"title":"\u0000","text":"\u0000","key":"\u0000","data":"\u0000"}',
    rb'{"to":["\u0000"],"title":"\ud800","entity":{"type":"\u0000","id":"\u0000"},"link":"http://\u0000"}',
    rb'{"to":["u1"],"title":"\ud800","data":"\udfff"}',
    rb'{"ids":["\u0000"],"as":"read","cmd":"\u0000"}',
    rb'{"ids":["\ud800"],"as":"read","cmd":"\ud800"}',
    rb'{"name":"\u0000","metric":"\u0000","channel":{"inbox":["u1"],"\u0000":["\u0000"]}}',
    rb'{"name":"\ud800","metric":"\ud800","channel":{"inbox":["u1"]}}',
    rb'{"name":"\u0000","addresses":{"\u0000":"\u0000","email":"a\u0000@example.test"}}',
    rb'{"alert":"\u0000","entity":{"type":"\u0000","id":"\u0000"},"until":"2030-01-01T00:00:00Z"}',
    rb'{"id":"\u0000","body":{"a":"\u0000"}}' + b"\n" + rb'{"id":"\ud800","body":{}}',
    rb'{"\u0000":"\u0000","alerts":{"\u0000":{"email":false}},"time_zone":"\u0000"}',
)
SEEDS: dict[str, tuple[bytes, ...]] = {
    "frame": tuple(c.encode() for c in COMMANDS),
    "filters": tuple(f.encode() for f in FILTERS),
    "position": (TOKEN.encode(), base64.urlsafe_b64encode(b"\x01epoch!" + b"\xff" * 20)),
    "cursors": tuple(
        text.encode()
        for text in (
            encode_cursor(Cursor(7, "n")),
            encode_id("vm"),
            encode_place(At(1, "notices", 0, 5)),
            base64.urlsafe_b64encode(json.dumps([2**70, "x" * 50, True, 1e300]).encode()).decode().rstrip("="),
        )
    ),
    "record": tuple(codec.encode(from_example(p.name.split(".")[0], json.loads(p.read_text()))) for p in EXAMPLES),
    "program_line": tuple(p.encode() for p in PRINTED),
    "entity": tuple(b.encode() for b in BODIES),
    "notice": tuple(b.encode() for b in BODIES),
    "json_text": tuple(b.encode() for b in BODIES),
}
