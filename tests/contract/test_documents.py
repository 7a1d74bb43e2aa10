"""/openapi.json and /asyncapi.json keep to their specifications, and name everything that there is.

`asyncapi/3.0.0.json.gz` is the specification's own JSON Schema as npm's `@asyncapi/specs` 6.11.1 has it, unchanged,
under the Apache License 2.0 (its licence and notice lie beside it).
"""

import contextlib
import gzip
import json
import re
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import openapi_spec_validator
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from api.app import create_app
from api.documents.asyncapi import asyncapi
from api.documents.openapi import openapi
from api.documents.operations import Call
from api.live import websocket
from api.live.pushes import CLOSE_CODES
from api.problems import CODES
from api.settings import DemoHooks, GatewaySettings, Limits
from tests.integration.documented import check_answer, check_frame
from topics.catalogue import Catalogue
from topics.cluster import Cluster

ROOT = Path(__file__).parents[2]
STATIC = {"/", "/tidings"}
NOWHERE = {"method_not_allowed"}  # of a method that a path does not know


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Starlette:
    return create_app(
        GatewaySettings(
            cluster=Cluster("127.0.0.1:1"),
            catalogue=Catalogue(("vm",)),
            database=f"sqlite:///{tmp_path_factory.mktemp('documents')}/tidings.db",
            secret="a secret of the tests, long enough for HS256",
            demo=DemoHooks(),
        )
    )


@pytest.fixture(scope="module")
def calls(app: Starlette) -> dict[str, Any]:
    return openapi([r for r in app.routes if isinstance(r, Call)], Limits(page=77, title_characters=55), ["vm"])


@pytest.fixture(scope="module")
def live() -> dict[str, Any]:
    return asyncapi(Limits(subscriptions=5))


def test_openapi_json_is_openapi(calls: dict[str, Any]) -> None:
    openapi_spec_validator.validate(calls)


def test_asyncapi_json_is_asyncapi(live: dict[str, Any]) -> None:
    specification = json.loads(gzip.decompress((ROOT / "tests/contract/asyncapi/3.0.0.json.gz").read_bytes()))
    jsonschema.Draft7Validator(specification).validate(live)
    for name, schema in live["components"]["schemas"].items():
        jsonschema.Draft7Validator.check_schema(schema), name


def test_every_route_says_what_it_does(app: Starlette, calls: dict[str, Any], live: dict[str, Any]) -> None:
    routes = {(r.path_format, r.method.lower()) for r in app.routes if isinstance(r, Call)}
    told = {(path, method) for path, said in calls["paths"].items() for method in said if method != "parameters"}
    assert routes == told
    silent = [r for r in app.routes if not isinstance(r, Call)]
    files = {r.path for r in silent if isinstance(r, Route | Mount)}
    assert files == STATIC
    streams = {path for path, said in calls["paths"].items() if "text/event-stream" in json.dumps(said)}
    assert {websocket.PATH.decode()} | streams == {c["address"] for c in live["channels"].values()}
    assert len(silent) == len(files)


def test_names_of_operations_are_taken_once(calls: dict[str, Any]) -> None:
    names = [said["operationId"] for path in calls["paths"].values() for m, said in path.items() if m != "parameters"]
    assert len(names) == len(set(names))


def test_every_problem_has_its_place(calls: dict[str, Any], live: dict[str, Any]) -> None:
    described = json.dumps(calls["paths"])
    only_live = {"bad_frame", "rate_limited", "too_slow", "unsubscribed"}
    assert {c for c in CODES if f"`{c}`" not in described} == NOWHERE | only_live
    for document in (calls, live):
        assert {c: p["status"] for c, p in document["x-problems"].items()} == {c: s for c, (s, _, _) in CODES.items()}
    assert calls["components"]["schemas"]["Refusal"]["properties"]["code"]["enum"] == list(CODES)
    assert live["components"]["schemas"]["Fault"]["properties"]["code"]["enum"] == list(CODES)


def test_every_code_that_ends_a_connection_is_told() -> None:
    said = {
        int(code)
        for file in (ROOT / "api").rglob("*.py")
        if file.name != "pushes.py"
        for code in re.findall(r"\b4[45]\d\d\b", file.read_text())
    }
    assert said == set(CLOSE_CODES)


async def test_they_are_served_to_everybody_and_asked_for_again_by_their_etag(app: Starlette) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        for path, version in (("/openapi.json", ("openapi", "3.1.0")), ("/asyncapi.json", ("asyncapi", "3.0.0"))):
            first = await client.get(path)
            await check_answer(first)
            assert first.json()[version[0]] == version[1]
            assert first.headers["cache-control"] == "no-cache"
            again = await client.get(path, headers={"if-none-match": f"W/{first.headers['etag']}"})
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
            other = await client.get(path, headers={"if-none-match": '"another"'})
            assert other.status_code == 200
        page = await client.get("/docs")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "script-src 'self'" in page.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "status", "body", "holds"),
    [
        ("/v1/me", 200, {"user": "u", "scopes": [], "entity_types": [], "demo": False}, True),
        ("/v1/me", 200, {"user": "u", "scopes": [], "entity_types": [], "demo": False, "more": 1}, False),
        ("/v1/me", 200, {"user": "u"}, False),
        ("/v1/me", 418, {}, False),
    ],
)
async def test_an_answer_that_is_not_as_described_is_found(
    path: str, status: int, body: dict[str, Any], holds: bool
) -> None:
    request = httpx.Request("GET", f"http://here{path}")
    answer = httpx.Response(status, json=body, headers={"x-request-id": "1"}, request=request)
    with contextlib.nullcontext() if holds else pytest.raises(AssertionError):
        await check_answer(answer)


def test_a_frame_that_is_not_as_described_is_found() -> None:
    check_frame('{"channel":"entities/vm","position":"p"}')
    with pytest.raises(AssertionError):
        check_frame('{"channel":"entities/vm","position":"p","more":1}')


def test_limits_are_those_of_the_settings(calls: dict[str, Any], live: dict[str, Any]) -> None:
    assert calls["components"]["schemas"]["DirectNotice"]["properties"]["title"]["maxLength"] == 55
    limit = next(p for p in calls["paths"]["/v1/notices"]["get"]["parameters"] if p["name"] == "limit")
    assert limit["schema"]["maximum"] == 77
    assert live["x-limits"]["subscriptions"] == 5
