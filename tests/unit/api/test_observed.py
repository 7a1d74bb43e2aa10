"""Ids of requests, and what becomes of a request that breaks."""

import io
import logging

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.http.observed import Observed
from api.metrics import Metrics
from tidings import logs

log = logging.getLogger("api.test")


async def _fine(_request: Request) -> Response:
    log.info("something about it")
    return JSONResponse({})


async def _broken(_request: Request) -> Response:
    raise RuntimeError("a fault of ours")


@pytest.fixture
def said() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
async def client(said: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> httpx.AsyncClient:
    monkeypatch.setattr(logging.root, "handlers", [logs.lines(said, "gateway")])
    monkeypatch.setattr(logging.getLogger("api"), "level", logging.INFO)
    metrics = Metrics()
    app = Starlette(
        routes=[Route("/fine", _fine), Route("/broken", _broken)], middleware=[Middleware(Observed, metrics=metrics)]
    )
    app.state.metrics = metrics
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("a-1._Z", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("a\tb=c", False), ("", False)],
)
async def test_a_safe_id_of_the_caller_is_kept(
    client: httpx.AsyncClient, said: io.StringIO, given: str, kept: bool
) -> None:
    answer = await client.get("/fine", headers={"x-request-id": given})
    name = answer.headers["x-request-id"]
    assert (name == given) is kept
    assert f"something about it request={name}\n" in said.getvalue()


async def test_each_request_has_an_id_of_its_own(client: httpx.AsyncClient) -> None:
    names = {(await client.get("/fine")).headers["x-request-id"] for _ in range(20)}
    assert len(names) == 20


async def test_what_breaks_is_answered_as_a_problem_and_logged_with_its_id(
    client: httpx.AsyncClient, said: io.StringIO
) -> None:
    answer = await client.get("/broken", headers={"x-request-id": "mine"})
    assert (answer.status_code, answer.json()["code"], answer.headers["x-request-id"]) == (500, "internal", "mine")
    assert "api.http.observed request failed method=GET error=RuntimeError request=mine\n" in said.getvalue()
    assert "fault of ours" not in answer.text
