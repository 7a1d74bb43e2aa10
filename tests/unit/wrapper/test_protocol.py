"""What a program prints, line by line: tolerant of stray text, strict on the protocol, and never a line lost after a
bad one.
"""

from __future__ import annotations

import json
import random

import pytest

from wrapper.protocol import Done, Hello, LineSplitter, Notice, Rejected, Stray, TooLong, parse


def _reason(line: str | bytes) -> str:
    found = parse(line.encode() if isinstance(line, str) else line)
    assert isinstance(found, Rejected), found
    return found.reason


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"type":"notice"', "bad_json"),
        ('{"type":"done"} x', "bad_json"),
        (b'{"type":"error","text":"\xff"}', "bad_json"),
        ('{"type":"error","text":"\\ud800"}', "bad_json"),
        ('{"type":"notice","key":"k","config":"c","title":"t","data":NaN}', "bad_json"),
        ("{" + '"a":[' * 100_000, "bad_json"),
        ('{"type":"shout"}', "bad_type"),
        ('{"type":["done"]}', "bad_type"),
        ("{}", "bad_type"),
        ('{"type":"notice","key":"k","title":"t"}', "bad_field"),
        ('{"type":"notice","key":7,"config":"c","title":"t"}', "bad_field"),
        ('{"type":"notice","key":"k","config":"c","title":"a\\u0000b"}', "bad_field"),
        ('{"type":"notice","key":"k","config":"c","title":"t","severity":"loud"}', "bad_field"),
        ('{"type":"done","seq":"5"}', "bad_field"),
        ('{"type":"hello","v":2}', "bad_field"),
        (json.dumps({"type": "notice", "key": "k" * 129, "config": "c", "title": "t"}), "limit"),
        (json.dumps({"type": "notice", "key": "k", "config": "c", "title": "t" * 301}), "limit"),
        (json.dumps({"type": "done", "state": "s" * 300_000}), "limit"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason(line: str | bytes, reason: str) -> None:
    assert _reason(line) == reason


def test_what_does_not_start_with_a_brace_is_text_for_the_log() -> None:
    assert parse(b"starting up \xff\r") == Stray("starting up \ufffd")


def test_unknown_fields_are_ignored() -> None:
    assert parse(b'{"type":"done","seq":3,"mood":"good"}') == Done(type="done", seq=3)


def test_data_and_state_stay_the_text_that_was_printed() -> None:
    notice = parse(b'{"type":"notice","key":"k","config":"c","title":"t","data": {"a" : 1.10, "a": 1e400, "s": " x "}}')
    assert isinstance(notice, Notice)
    assert notice.data == '{"a":1.10,"a":1e400,"s":" x "}'
    done = parse(b'{"type":"done","state":null}')
    assert isinstance(done, Done)
    assert done.state == "null"
    assert "state" not in Done(type="done").model_fields_set


def test_hello_needs_only_its_version() -> None:
    assert parse(b'{"type":"hello","v":1}') == Hello(type="hello", v=1)


def test_a_line_over_the_limit_is_one_rejected_line_and_the_next_is_whole() -> None:
    splitter = LineSplitter(limit=1000)
    stream = b"{one}\n{" + b"x" * 5000 + b"\n{two}\nrest"
    lines = [line for i in range(0, len(stream), 7) for line in splitter.feed(stream[i : i + 7])]
    assert [lines[0], lines[2]] == [b"{one}", b"{two}"]
    assert isinstance(lines[1], TooLong)
    assert lines[1].length == 5001
    assert len(lines[1].head) == 800
    found = parse(lines[1])
    assert isinstance(found, Rejected)
    assert found.reason == "too_long"
    assert splitter.rest == b"rest"


def test_lines_do_not_depend_on_how_the_pipe_cuts_them() -> None:
    rng = random.Random(1)
    wanted = [bytes(rng.choices(b"ab{}", k=rng.randrange(12))) for _ in range(200)]
    stream = b"".join(line + b"\n" for line in wanted)
    splitter, found, at = LineSplitter(limit=20), [], 0
    while at < len(stream):
        size = rng.randrange(1, 30)
        found += list(splitter.feed(stream[at : at + size]))
        at += size
    assert found == wanted
