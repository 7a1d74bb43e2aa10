"""`/openapi.json` (OpenAPI 3.1), made from the routes' operations, the types that check requests, the problem codes and
the limits of this gateway. Nothing is described that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from api.documents.answers import Refusal
from api.documents.operations import Call, Operation, Param
from api.documents.schemas import schemas
from api.http.requests import JSON
from api.problems import CODES
from api.settings import Limits

PROBLEM = "application/problem+json"
REQUEST_ID = "X-Request-Id"
# Limits that the schema of a member can say.
_MEMBERS = {("DirectNotice", "title"): ("maxLength", "title_characters"), ("DirectNotice", "to"): ("maxItems", "users")}
_ABOUT = "Times are RFC 3339 in UTC. Every refusal has a stable `code` and says what to do."


def openapi(calls: Iterable[Call], limits: Limits, entity_types: Iterable[str]) -> dict[str, Any]:
    """The document of a gateway that serves these types of entities."""
    calls = list(calls)
    shapes, named = schemas((Refusal, *(t for c in calls for t in _types(c.operation))))
    for (model, member), (word, limit) in _MEMBERS.items():
        named[model]["properties"][member][word] = getattr(limits, limit)
    named["Refusal"]["properties"]["code"]["enum"] = list(CODES)
    paths: dict[str, dict[str, Any]] = {}
    for call in calls:
        path = paths.setdefault(call.path_format, _path(call, list(entity_types)))
        path[call.method.lower()] = _operation(call, shapes, limits)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tidings", "version": version("tidings"), "description": _ABOUT, "license": {"name": "MIT"}},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": named,
            "headers": {
                REQUEST_ID: {"description": "Names this request in the gateway's log.", "schema": {"type": "string"}}
            },
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        },
        "x-problems": problems(),
        "x-limits": asdict(limits),
    }


def problems() -> dict[str, dict[str, Any]]:
    """Every refusal: its status, what happened, what to do."""
    return {code: {"status": status, "title": title, "todo": todo} for code, (status, title, todo) in CODES.items()}


def codes(operation: Operation) -> list[str]:
    """What an operation may be refused with."""
    always = ["internal"]
    if operation.scope is not None:
        always += ["unauthorized", "not_ready", "keys_away"]
    if operation.scope:
        always.append("forbidden")
    return [code for code in CODES if code in (*always, *operation.problems)]


def _types(operation: Operation) -> Iterable[Any]:
    contents = map(_content, (*operation.answers.values(), operation.takes))
    yield from (t for content in contents for t in content.values() if t is not None)
    yield from (p.type for p in operation.params)


def _content(said: Any) -> Mapping[str, Any]:
    """Media type → type."""
    return said if isinstance(said, Mapping) else {JSON: said}


def _path(call: Call, entity_types: list[str]) -> dict[str, Any]:
    schemas = {"id": {"type": "string", "minLength": 1, "maxLength": 200}, "type": {"enum": entity_types}}
    parameters = [{"name": n, "in": "path", "required": True, "schema": schemas[n]} for n in call.param_convertors]
    return {"parameters": parameters} if parameters else {}


def _operation(call: Call, shapes: Mapping[Any, Any], limits: Limits) -> dict[str, Any]:
    operation = call.operation
    found: dict[str, Any] = {
        "operationId": "-".join(dict.fromkeys((call.room, call.endpoint.__name__.strip("_").replace("_", "-")))),
        "tags": [call.room],
        "summary": operation.summary,
        "security": [] if operation.scope is None else [{"token": [operation.scope] if operation.scope else []}],
    }
    if operation.params:
        found["parameters"] = [_param(p, shapes, limits) for p in operation.params]
    if operation.takes is not None:
        found["requestBody"] = {
            "required": True,
            "content": _media(operation.takes, shapes),
            "description": f"At most {getattr(limits, operation.size)} bytes (the limit `{operation.size}`).",
        }
    found["responses"] = _responses(operation, shapes)
    return found


def _param(param: Param, shapes: Mapping[Any, Any], limits: Limits) -> dict[str, Any]:
    schema = dict(shapes[param.type])
    if param.most is not None:
        schema |= {"minimum": 1, "maximum": getattr(limits, param.most)}
    return {"name": param.name, "in": param.where, "description": param.means, "schema": schema}


def _responses(operation: Operation, shapes: Mapping[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for status, answer in operation.answers.items():
        found[str(status)] = {"description": HTTPStatus(status).phrase, "headers": {REQUEST_ID: _HEADER}}
        if answer is not None:
            found[str(status)]["content"] = _media(answer, shapes)
        if operation.etag:
            found[str(status)]["headers"]["ETag"] = {"schema": {"type": "string"}}
    refusals: dict[int, list[str]] = {}
    for code in codes(operation):
        refusals.setdefault(CODES[code][0], []).append(code)
    for status, several in sorted(refusals.items()):
        refused = found.setdefault(str(status), {"headers": {REQUEST_ID: _HEADER}})
        refused["description"] = ", ".join([*filter(None, [refused.get("description")]), *(f"`{c}`" for c in several)])
        is_one_of = {"properties": {"code": {"enum": several}}}
        refusal = {"schema": {"allOf": [shapes[Refusal], is_one_of]}}
        refused.setdefault("content", {})[PROBLEM] = refusal
    return dict(sorted(found.items()))


def _media(said: Any, shapes: Mapping[Any, Any]) -> dict[str, Any]:
    return {media: {"schema": {"type": "string"} if t is None else shapes[t]} for media, t in _content(said).items()}


_HEADER = {"$ref": f"#/components/headers/{REQUEST_ID}"}
