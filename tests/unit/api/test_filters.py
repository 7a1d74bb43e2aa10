"""The filter language says what the contract says, against an evaluation written apart."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.live.filters import BadFilter, both, parse

scalars = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["", "a", "ab", "b", "ä", "😀"])
)
values = st.recursive(
    scalars, lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from("ab"), v, max_size=2), max_leaves=5
)
entities = st.dictionaries(st.sampled_from(["a", "b", "c"]), values, max_size=3)
paths = st.sampled_from(["a", "b", "a.a", "a.b", "c.a.b"])
leaves = st.one_of(
    st.builds(lambda k, o, v: {"key": k, "op": o, "val": v}, paths, st.sampled_from(["eq", "ne"]), scalars),
    st.builds(
        lambda k, o, v: {"key": k, "op": o, "val": v},
        paths,
        st.sampled_from(["lt", "le", "gt", "ge"]),
        st.integers(-5, 5) | st.sampled_from(["a", "b"]),
    ),
    st.builds(lambda k, v: {"key": k, "op": "in", "val": v}, paths, st.lists(scalars, min_size=1, max_size=3)),
    st.builds(lambda k, v: {"key": k, "op": "prefix", "val": v}, paths, st.sampled_from(["", "a"])),
    st.builds(lambda k, v: {"key": k, "op": "exists", "val": v}, paths, st.booleans()),
)
filters = st.recursive(
    leaves,
    lambda f: (
        st.builds(
            lambda o, n: {"op": o, "nodes": n}, st.sampled_from(["and", "or"]), st.lists(f, min_size=1, max_size=3)
        )
        | st.builds(lambda n: {"op": "not", "nodes": [n]}, f)
    ),
    max_leaves=6,
)


def expected(f: dict[str, Any], entity: Any) -> bool:
    """The contract's words, once more."""
    op = f["op"]
    if op == "and":
        return all(expected(n, entity) for n in f["nodes"])
    if op == "or":
        return any(expected(n, entity) for n in f["nodes"])
    if op == "not":
        return not expected(f["nodes"][0], entity)
    found, here = entity, True
    for name in f["key"].split("."):
        here = here and isinstance(found, dict) and name in found
        found = found[name] if here else None
    if op == "exists":
        return here is f["val"]
    if op == "ne":
        return not expected({**f, "op": "eq"}, entity)
    if not here:
        return False
    if op == "in":
        return any(expected({"key": f["key"], "op": "eq", "val": v}, entity) for v in f["val"])
    val = f["val"]
    number = all(type(x) in (int, float) for x in (found, val))
    text = all(type(x) is str for x in (found, val))
    if op == "eq":
        same_kind = number or text or (type(found) is type(val) and type(val) in (bool, type(None)))
        return same_kind and found == val
    if op == "prefix":
        return text and found[: len(val)] == val
    if not number and not text:
        return False
    order = (
        (found > val) - (found < val)
        if number
        else ([*map(ord, found)] > [*map(ord, val)]) - ([*map(ord, found)] < [*map(ord, val)])
    )
    return {"lt": order < 0, "le": order <= 0, "gt": order > 0, "ge": order >= 0}[op]


@given(filters, entities)
def test_a_filter_matches_what_the_contract_says(given_filter: dict[str, Any], entity: dict[str, Any]) -> None:
    assert parse(given_filter, nodes=200).matches(entity) == expected(given_filter, entity)


def test_two_filters_hold_together() -> None:
    one, two = parse({"key": "a", "op": "eq", "val": 1}), parse({"key": "b", "op": "exists"})
    joined = both(one, two)
    assert joined is not None
    assert joined.matches({"a": 1, "b": 0})
    assert not joined.matches({"a": 1})
    assert both(one, None) is one
    assert both(None, None) is None


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        {},
        {"op": "eq"},
        {"key": "", "op": "eq", "val": 1},
        {"key": "a", "op": "eq"},
        {"key": "a", "op": "eq", "val": {}},
        {"key": "a", "op": "lt", "val": True},
        {"key": "a", "op": "in", "val": []},
        {"key": "a", "op": "in", "val": list(range(10_000))},
        {"key": "a", "op": "prefix", "val": 1},
        {"key": "a", "op": "like", "val": 1},
        {"key": "a", "op": ["eq"], "val": 1},
        {"key": "a", "op": "eq", "val": 1, "value": 2},
        {"op": "and", "nodes": []},
        {"op": "not", "nodes": [{"key": "a", "op": "exists"}] * 2},
        {"op": "or", "nodes": [{"key": "a", "op": "exists"}] * 100},
    ],
)
def test_a_wrong_filter_is_refused(wrong: Any) -> None:
    with pytest.raises(BadFilter):
        parse(wrong)


def test_depth_is_limited() -> None:
    deep: dict[str, Any] = {"key": "a", "op": "exists"}
    for _ in range(5_000):
        deep = {"op": "not", "nodes": [deep]}
    with pytest.raises(BadFilter, match="deeply"):
        parse(deep)
