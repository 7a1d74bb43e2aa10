"""Holds what a gateway answers against what its documents say: every answer and every frame of the tests that talk to a
gateway goes through here.

Stricter than for readers: a member that the documents do not name is a fault, too.
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from typing import Any

import httpx
import jsonschema_rs
from starlette.routing import Match

from api.app import create_app
from api.documents.asyncapi import asyncapi
from api.documents.openapi import PROBLEM, openapi
from api.documents.operations import EVENT_STREAM, Call
from api.http.requests import JSON
from api.live.pushes import ANSWERS, PUSHES
from api.settings import DemoHooks, GatewaySettings, Limits
from topics.catalogue import Catalogue
from topics.cluster import Cluster


@cache
def calls() -> list[Call]:
    """The calls of every gateway."""
    app = create_app(
        GatewaySettings(
            cluster=Cluster("127.0.0.1:1"),
            catalogue=Catalogue(("vm", "task")),
            database=f"sqlite:///{tempfile.gettempdir()}/never-opened.db",
            secret="a secret of the tests, long enough for HS256",
            demo=DemoHooks(),
        )
    )
    return [route for route in app.routes if isinstance(route, Call)]


@cache
def _answers() -> dict[str, Any]:
    return _closed(openapi(calls(), Limits(), ("vm", "task")))


@cache
def _frames() -> jsonschema_rs.Validator:
    document = _closed(asyncapi(Limits()))
    payloads = [document["components"]["messages"][name]["payload"] for name in (*ANSWERS, *PUSHES)]
    return jsonschema_rs.validator_for({"anyOf": payloads, "components": document["components"]})


@cache
def _schema(path: str, method: str, status: int, media: str) -> jsonschema_rs.Validator:
    document = _answers()
    responses = document["paths"][path][method]["responses"]
    assert str(status) in responses, f"{method} {path} does not say that it answers {status}"
    content = responses[str(status)].get("content", {})
    assert media in content, f"{method} {path} does not say that a {status} is {media}"
    return jsonschema_rs.validator_for(content[media]["schema"] | {"components": document["components"]})


async def check_answer(response: httpx.Response) -> None:
    """AssertionError where an answer is not as /openapi.json says."""
    request, media = response.request, response.headers.get("content-type", "").partition(";")[0]
    scope = {"type": "http", "path": request.url.path, "method": request.method}
    call = next((c for c in calls() if c.matches(scope)[0] is Match.FULL), None)
    assert "x-request-id" in response.headers
    if media == EVENT_STREAM or response.status_code == 304:
        return
    await response.aread()
    if call is None:
        assert response.status_code in (404, 405) or not request.url.path.startswith("/v1/")
    elif media in (JSON, PROBLEM):
        schema = _schema(call.path_format, call.method.lower(), response.status_code, media)
        _hold(schema, response.json(), f"{request.method} {request.url.path}: {response.text[:500]}")
    else:
        assert response.status_code < 400, "a refusal is a problem"


def check_frame(text: str) -> None:
    """AssertionError where a frame is not as /asyncapi.json says."""
    _hold(_frames(), json.loads(text), text[:500])


def _hold(schema: jsonschema_rs.Validator, value: Any, what: str) -> None:
    faults = [fault.message for fault in schema.iter_errors(value)]
    assert not faults, f"{faults[0]} in {what}"


def _closed(document: dict[str, Any]) -> dict[str, Any]:
    """The same, where what is not named is not allowed."""
    for schema in document["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return document
