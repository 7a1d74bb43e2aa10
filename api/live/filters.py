"""The filter language of the contract: one function decides for pushes, snapshots and HTTP lists, so that they
can't differ.

A missing path matches only `exists` false, `ne` and `not`; numbers compare with numbers, strings by code point, mixed
kinds never.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from api.problems import Problem
from api.settings import Limits
from topics.json_text import dumps

Match = Callable[[Any], bool]
_ORDER = {"lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge}
_MISSING = object()
LONGEST_KEY = 200


class BadFilter(ValueError):
    """What is wrong with a filter, for people."""


class TooMuch(BadFilter):
    """It exceeds `limit`."""

    def __init__(self, limit: str, text: str) -> None:
        super().__init__(text)
        self.limit = limit


@dataclass(frozen=True, slots=True)
class Filter:
    """`matches` an entity's parsed body; `name` is equal for equal filters."""

    name: str
    matches: Match = field(compare=False)


def parse(given: Any, *, depth: int = 8, nodes: int = 64) -> Filter:
    """A filter from its JSON. BadFilter; at most `depth` levels and `nodes` conditions."""
    budget = [nodes]
    match = _node(given, depth, budget)  # first: what is nested too deeply can't be written either
    return Filter(dumps(given), match)


def requested(given: Any, limits: Limits) -> Filter:
    """A client's filter. Problem `bad_filter`."""
    try:
        return parse(given, depth=limits.filter_depth, nodes=limits.filter_nodes)
    except TooMuch as error:
        value = getattr(limits, error.limit)
        raise Problem("bad_filter", f"{error}: at most {value}.", limit=error.limit, value=value) from error
    except BadFilter as error:
        raise Problem("bad_filter", f"{error}.") from error


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """What matches the two; either may be absent."""
    if first is None or second is None:
        return first or second
    return Filter(f"{first.name}&{second.name}", lambda entity: first.matches(entity) and second.matches(entity))


def _node(given: Any, depth: int, budget: list[int]) -> Match:
    budget[0] -= 1
    if budget[0] < 0:
        raise TooMuch("filter_nodes", "too many conditions")
    if depth <= 0:
        raise TooMuch("filter_depth", "nested too deeply")
    if not isinstance(given, dict):
        raise BadFilter("a filter is a JSON object")
    op = given.get("op")
    if not isinstance(op, str):
        raise BadFilter("`op` says how to compare")
    if op in ("and", "or", "not"):
        _only(given, {"op", "nodes"})
        below = given.get("nodes")
        if not isinstance(below, list) or not below or (op == "not" and len(below) != 1):
            raise BadFilter(f"`{op}` needs {'exactly one filter' if op == 'not' else 'at least one filter'} in `nodes`")
        return _combined(op, [_node(n, depth - 1, budget) for n in below])
    _only(given, {"key", "op", "val"})
    key = given.get("key")
    if not isinstance(key, str) or not key or len(key) > LONGEST_KEY:
        raise BadFilter(f"`key` is a dotted path of 1 to {LONGEST_KEY} characters")
    return _condition(op, tuple(key.split(".")), given.get("val", _MISSING), budget)


def _combined(op: str, below: list[Match]) -> Match:
    if op == "and":
        return lambda entity: all(match(entity) for match in below)
    if op == "or":
        return lambda entity: any(match(entity) for match in below)
    return lambda entity: not below[0](entity)


def _condition(op: str, path: tuple[str, ...], val: Any, budget: list[int]) -> Match:
    if op in ("eq", "ne"):
        _scalar(op, val)
        same: Match = lambda entity: _equal(_at(entity, path), val)  # noqa: E731
        return same if op == "eq" else lambda entity: not same(entity)
    if op in _ORDER:
        compare, kind = _ORDER[op], _kind(val)
        if kind not in "ns":
            raise BadFilter(f"`{op}` compares with a number or a string in `val`")
        return lambda entity: _kind(found := _at(entity, path)) == kind and compare(found, val)
    if op == "in":
        if not isinstance(val, list) or not val:
            raise BadFilter("`in` needs a list in `val`")
        budget[0] -= len(val) // 10  # a list is cheaper than conditions, but not free
        if budget[0] < 0:
            raise TooMuch("filter_nodes", "too many conditions")
        for one in val:
            _scalar(op, one)
        return lambda entity: any(_equal(_at(entity, path), one) for one in val)
    if op == "prefix":
        if not isinstance(val, str):
            raise BadFilter("`prefix` needs a string in `val`")
        return lambda entity: isinstance(found := _at(entity, path), str) and found.startswith(val)
    if op == "exists":
        if val is not _MISSING and not isinstance(val, bool):
            raise BadFilter("`exists` takes true or false in `val`")
        wanted = val is not False
        return lambda entity: (_at(entity, path) is not _MISSING) == wanted
    raise BadFilter("`op` is one of eq, ne, lt, le, gt, ge, in, prefix, exists, and, or, not")


def _at(entity: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(entity, dict) or name not in entity:
            return _MISSING
        entity = entity[name]
    return entity


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "b"
    if isinstance(value, int | float):
        return "n"
    if isinstance(value, str):
        return "s"
    return "z" if value is None else "x"


def _equal(found: Any, val: Any) -> bool:
    kind = _kind(found)
    return kind != "x" and kind == _kind(val) and bool(found == val)


def _scalar(op: str, val: Any) -> None:
    if val is _MISSING or _kind(val) == "x":
        raise BadFilter(f"`{op}` compares with a number, a string, true, false or null in `val`")


def _only(given: dict[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(given) - known):
        raise BadFilter(f"unknown member {unknown[0]!r}")
