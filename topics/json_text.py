"""JSON as text: cut an object into the raw text of its members, and join such texts again.

A config's `metric` has to come out byte for byte as it went in (1.10, duplicate keys, escapes), which no parser keeps;
only white space outside strings may go.
"""

from __future__ import annotations

import json
import re

_decoder = json.JSONDecoder(strict=True)
_token = re.compile(r'"(?:[^"\\]|\\.)*"|[ \t\r\n]+')
_space = re.compile(r"[ \t\r\n]*")


def compact(text: str) -> str:
    """`text` (valid JSON) without white space outside strings."""
    return _token.sub(lambda m: m[0] if m[0][0] == '"' else "", text)


def members(text: str) -> dict[str, str]:
    """The raw text of each member of a JSON object, in order; of a doubled name the last.

    ValueError unless it is an object.
    """
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


def joined(parts: dict[str, str]) -> str:
    """A JSON object of raw member texts."""
    return "{" + ",".join(f"{json.dumps(name)}:{raw}" for name, raw in parts.items()) + "}"


def dumps(value: object) -> str:
    """Our own one-line form: no spaces, UTF-8 kept."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _skip(text: str, at: int) -> int:
    match = _space.match(text, at)
    return match.end() if match else at


def _ended(text: str, at: int, found: dict[str, str]) -> dict[str, str]:
    if _skip(text, at + 1) != len(text):
        raise json.JSONDecodeError("Extra data", text, at + 1)
    return found
