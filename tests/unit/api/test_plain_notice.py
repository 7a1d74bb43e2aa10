"""The check by hand takes only what the full check takes, and makes of it what that makes of it."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from api.notices.direct import checked, shown
from api.notices.plain import plain_notice
from api.problems import Problem
from api.settings import Limits

LIMITS = Limits(title_characters=8, text=20, data=40, users=3)
words = st.text(max_size=9) | st.sampled_from(
    ["a", "\u00e4", "\x00", '"\\', "\ud800", "/x", "https://a.test/b", "//x", "javascript:1"]
)
odd = st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.lists(words, max_size=2)
members = st.fixed_dictionaries(
    {
        "to": st.lists(st.sampled_from(["u1", "u2", "\u00e4"]), min_size=1, max_size=3) | st.lists(words | odd) | odd,
        "title": st.sampled_from(["t", "\u00e4"]) | words | odd,
    },
    optional={
        "text": words | st.text(min_size=15, max_size=25) | odd,
        "severity": st.sampled_from(["info", "warning", "error", "critical", "Info", ""]) | odd,
        "link": words | odd,
        "entity": st.dictionaries(st.sampled_from(["type", "id", "name"]), words | odd, max_size=3) | odd,
        "data": st.dictionaries(words, words | odd, max_size=4) | odd,
        "key": words | odd,
        "channel": st.just({"email": ["a@b.test"]}) | odd,
        "forward_after": odd,
        "other": odd,
    },
)


def fully(text: str) -> Any:
    """What the full check makes of it; null for what it refuses."""
    try:
        found = checked(text, LIMITS)
    except Problem:
        return None
    entity = (found.entity.type, found.entity.id) if found.entity else (None, None)
    return tuple(found.to), found.severity, *entity, shown(text)


@given(members, st.booleans(), st.sampled_from([(",", ":"), (" ,\n", " : ")]))
def test_both_checks_agree(notice: dict[str, Any], ascii_only: bool, separators: tuple[str, str]) -> None:
    text = json.dumps(notice, ensure_ascii=ascii_only, separators=separators)
    if not ascii_only and "\ud800" in text:  # no body that is UTF-8 holds it
        return
    found = plain_notice(text, LIMITS)
    if found is not None:
        assert (found.users, found.severity, found.entity_type, found.entity_id, found.body) == fully(text)


@given(st.text(alphabet='{}[]":,\\ut0123dD8tole"i', max_size=40))
def test_what_is_no_notice_is_none(text: str) -> None:
    found = plain_notice(text, LIMITS)
    assert found is None or fully(text) is not None


def test_usual_notices_are_plain() -> None:
    several: list[dict[str, Any]] = [
        {},
        {"text": "x"},
        {"severity": "critical"},
        {"link": "/a"},
        {"entity": {"type": "vm", "id": "1"}},
        {"data": {"n": 1.10}},
    ]
    for more in several:
        assert plain_notice(json.dumps({"to": ["u1", "u2"], "title": "t"} | more), LIMITS) is not None


def test_of_a_doubled_member_the_last_holds_and_numbers_keep_their_digits() -> None:
    text = '{"to":["a"],"title":"x","title":"y","data": {"n": 1.10},"to":["b","b"]}'
    found = plain_notice(text, LIMITS)
    assert found is not None
    assert found.users == ("b",)
    assert found.body == b'{"title":"y","data":{"n":1.10}}' == shown(text)


def test_what_asks_for_more_is_left_to_the_full_check() -> None:
    several: list[dict[str, Any]] = [
        {"key": "k"},
        {"channel": {}},
        {"forward_after": 1},
        {"to": []},
        {"title": ""},
        {"text": None},
    ]
    for more in several:
        assert plain_notice(json.dumps({"to": ["u1"], "title": "t"} | more), LIMITS) is None


def test_nesting_that_no_reader_could_follow_is_left_to_the_full_check() -> None:
    deep = [f'{{"to":["u1"],"title":"t","data":{{"x":{"[" * n}{"]" * n}}}}}' for n in range(800, 1010)]
    taken = [plain_notice(text, Limits()) is not None for text in deep]
    assert taken[0]
    assert not taken[-1]
    assert taken == sorted(taken, reverse=True)
