"""JSON as text: cut an object into the raw text of its members, and join such texts again.

A config's `metric` has to come out byte for byte as it went in (1.10, duplicate keys, escapes), which no parser keeps;
only white space outside strings may go.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from json.encoder import encode_basestring
from typing import Any

import orjson

NESTED = "Nested too deeply"
SHALLOW = 200  # brackets: with more of them the quick reader may follow where no other can


def _no_json(name: str) -> None:
    msg = f"{name} is no JSON"
    raise ValueError(msg)


_named = lru_cache(maxsize=4096)(json.dumps)
_decoder = json.JSONDecoder(strict=True, parse_constant=_no_json)
_encoder = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)
_token = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+')
_bracket = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')
_space = re.compile(r"[ \t\r\n]*")


def compact(text: str) -> str:
    """`text` (valid JSON) without white space outside strings."""
    return _token.sub(lambda m: m[0] if m[0][0] == '"' else "", text)


def depth(text: str) -> int:
    """How deeply `text` (valid JSON) is nested: 0 for what has no brackets."""
    level = deepest = 0
    for found in _bracket.finditer(text):
        level += (found[0] in "[{") - (found[0] in "]}")
        deepest = max(deepest, level)
    return deepest


def members(text: str) -> dict[str, str]:
    """The raw text of each member of a JSON object, in order; of a doubled name the last.

    ValueError unless it is an object.
    """
    try:
        return _texts(text) or _members(text)
    except RecursionError as error:
        raise json.JSONDecodeError(NESTED, text, 0) from error


def _texts(text: str) -> dict[str, str] | None:
    """The usual object, whose members are texts without escapes: as they are read, so they were written. Null for any
    other, and for what is none.
    """
    found = None if "\\" in text else _quickly(text)
    if type(found) is not dict or text.count('"') != 4 * len(found) or {type(v) for v in found.values()} != {str}:
        return None
    return {name: f'"{value}"' for name, value in found.items()}


def _members(text: str) -> dict[str, str]:
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        msg = "a JSON object is expected"
        raise ValueError(msg)
    found: dict[str, str] = {}
    at = _skip(text, at + 1)
    if text[at : at + 1] == "}":
        return _ended(text, at, found)
    while True:
        if text[at : at + 1] != '"':
            raise json.JSONDecodeError("Expecting a member name in double quotes", text, at)
        name, at = _decoder.raw_decode(text, at)
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise json.JSONDecodeError("Expecting ':' delimiter", text, at)
        start = _skip(text, at + 1)
        _, at = _decoder.raw_decode(text, start)
        found.pop(name, None)
        found[name] = text[start:at]
        at = _skip(text, at)
        if text[at : at + 1] == "}":
            return _ended(text, at, found)
        if text[at : at + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
        at = _skip(text, at + 1)


def parse(text: str) -> Any:
    """What valid JSON text says; ValueError for anything else: NaN, and nesting that no reader could follow, too."""
    try:
        return _decoder.decode(text)
    except RecursionError as error:
        raise json.JSONDecodeError(NESTED, text, 0) from error


def read(text: str) -> Any:
    """As `parse`; but a number of more than 64 bits may come as a float."""
    found = _quickly(text)
    return parse(text) if found is None else found


def checked(body: bytes, *, an_object: bool = False) -> str:
    """UTF-8 bytes as JSON text, or as that of an object. ValueError if they are none."""
    text = body.decode()
    found = _quickly(text)
    if an_object and type(found) is not dict:
        members(text)
    elif found is None:
        parse(text)
    return text


def _quickly(text: str) -> Any:
    """What JSON says, or null where this reader can't tell: it takes nothing that `parse` refuses."""
    if text.count("{") + text.count("[") > SHALLOW:
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None


def joined(parts: dict[str, str]) -> str:
    """A JSON object of raw member texts."""
    return "{" + ",".join([f"{_named(name)}:{raw}" for name, raw in parts.items()]) + "}"


def dumps(value: object) -> str:
    """Our own one-line form: no spaces, UTF-8 kept."""
    return encode_basestring(value) if type(value) is str else _encoder.encode(value)


def encoded(text: str) -> bytes:
    """JSON text as UTF-8; half of a surrogate pair, which people can write as an escape, becomes its escape again."""
    return text.encode("utf-8", "backslashreplace")


def _skip(text: str, at: int) -> int:
    match = _space.match(text, at)
    return match.end() if match else at


def _ended(text: str, at: int, found: dict[str, str]) -> dict[str, str]:
    if _skip(text, at + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)
    return found
