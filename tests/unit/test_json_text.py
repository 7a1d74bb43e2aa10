"""JSON as text: what a parser would change stays as it was written."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topics.json_text import checked, compact, depth, joined, members, parse, read

ODD = '{"a": 1.10, "b" :{"x":1 , "x":2}, "c":"\\ud800 \\u00e9 /", "d":1e400, "e":[123456789012345678901234567890]}'


def test_odd_json_keeps_its_text() -> None:
    parts = members(ODD)
    assert list(parts.values()) == [
        "1.10",
        '{"x":1 , "x":2}',
        '"\\ud800 \\u00e9 /"',
        "1e400",
        "[123456789012345678901234567890]",
    ]
    assert compact(joined(parts)) == compact(ODD)
    assert compact('{"a b" : " x  y " }') == '{"a b":" x  y "}'


def test_brackets_in_strings_are_no_depth() -> None:
    assert [depth(t) for t in ("1", "[]", r'{"a[": [{}, "\"[[[", []]}', "[[[]]]")] == [0, 1, 3, 3]


def test_of_a_doubled_name_the_last_stands_and_at_its_place() -> None:
    for first in ('"1"', "1", '"\\u0031"'):
        assert list(members(f'{{"a":{first},"b":"2","a":"3"}}').items()) == [("b", '"2"'), ("a", '"3"')]
    assert members(' {"a" : "\u00e9 / x", "b":""} ') == {"a": '"\u00e9 / x"', "b": '""'}


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"a"}', '{"a":}', '{"a":1,}', '{"a":1} x', "{a:1}", '{"a":1 "b":2}', "null"]
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - JSONDecodeError is one
        members(text)
    with pytest.raises(ValueError):  # noqa: PT011
        checked(text.encode(), an_object=True)


@pytest.mark.parametrize(
    "text",
    [
        ODD,
        " null ",
        "NaN",
        '{"a":-Infinity}',
        '{"a":01}',
        '"\x01"',
        '"\\ud800"',
        "\ufeff{}",
        "1e999",
        "[" * 900 + "]" * 900,
        "[" * 1_000 + "]" * 1_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "9" * 400,
        "9" * 5_000,
        "{}\0",
        '{"\\u0000":1}',
    ],
)
def test_the_quick_reader_takes_what_the_other_takes(text: str) -> None:
    try:
        expected = parse(text)
    except ValueError:
        for taking in (read, lambda text: checked(text.encode())):
            with pytest.raises(ValueError):  # noqa: PT011
                taking(text)
    else:
        assert read(text) == expected
        assert checked(text.encode()) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@settings(derandomize=True, max_examples=200)
@given(st.dictionaries(st.text(), JSON, max_size=4), st.sampled_from([None, 1, 4]), st.booleans())
def test_members_joined_and_compacted_mean_the_same(value: dict[str, object], indent: int | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_)
    assert json.loads(joined(members(text))) == value
    assert json.loads(compact(text)) == value
    assert compact(compact(text)) == compact(text)
