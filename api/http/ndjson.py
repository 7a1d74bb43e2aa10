"""Batches: NDJSON, or a JSON list, cut into the raw text of each item; every item gets an answer of its own."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.http.requests import JSON, body_text, gateway_of, json_value
from api.problems import Problem, over

if TYPE_CHECKING:
    from collections.abc import Iterator

_decoder = json.JSONDecoder()


async def lines(request: Request) -> list[str]:
    """The lines of an NDJSON body, empty ones left out. Problem `too_large`, `limit`."""
    limits = gateway_of(request).settings.limits
    text = await body_text(request, "ndjson_body", "An NDJSON body")
    found = [line for line in text.split("\n") if line.strip()]
    if len(found) > limits.ndjson_lines:
        raise over("ndjson_lines", limits.ndjson_lines, "lines")
    return found


def items(text: str, most: int) -> list[str]:
    """The raw text of each item of a JSON list. Problem."""
    try:
        found = list(_items(text)) if isinstance(orjson.loads(text), list) else None
    except (ValueError, RecursionError):  # what one of the readers refuses is read as all else is, and refused there
        found = list(_items(text)) if isinstance(json_value(text), list) else None
    if found is None:
        raise Problem("bad_json", "A JSON list is expected.")
    if len(found) > most:
        raise over("ndjson_lines", most, "items")
    return found


def refused(index: int, problem: Problem) -> dict[str, Any]:
    """The answer to an item that was refused; lines count from 1."""
    return {"line": index + 1, "error": problem.members()}


def answer(results: list[dict[str, Any]], **more: str) -> Response:
    """What became of each; refused as a whole where none was accepted."""
    wrong = sum("error" in r for r in results)
    said = {"accepted": len(results) - wrong, "refused": wrong, "results": results} | more
    return Response(orjson.dumps(said), 422 if results and wrong == len(results) else 202, media_type=JSON)


def _items(text: str) -> Iterator[str]:
    at = text.index("[") + 1
    while True:
        while text[at] in " \t\r\n,":
            at += 1
        if text[at] == "]":
            return
        start = at
        _, at = _decoder.raw_decode(text, start)
        yield text[start:at]
