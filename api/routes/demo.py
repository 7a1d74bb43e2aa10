"""`/demo…`: what `tidings up` adds to its page; elsewhere these paths don't exist."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.documents.answers import Demo
from api.documents.operations import Operation
from api.http.requests import caller, gateway_of
from api.problems import Problem
from api.settings import DemoHooks


def _hooks(request: Request, scope: str | None = None) -> DemoHooks:
    caller(request, scope)
    hooks = gateway_of(request).settings.demo
    if hooks is None:
        raise Problem("not_found", "There is no demo here.")
    return hooks


@Operation("GET", "/demo", "What this demo has", {200: Demo}, problems=("not_found",))
async def _demo(request: Request) -> Response:
    hooks = _hooks(request)
    return JSONResponse({"mail": hooks.mail is not None, "stress": hooks.stress is not None})


@Operation(
    "GET",
    "/demo/mail",
    "The mail that the demo's server took",
    {200: list[dict[str, Any]]},
    "audit",
    problems=("not_found",),
)
async def _mail(request: Request) -> Response:
    hooks = _hooks(request, "audit")
    if hooks.mail is None:
        raise Problem("not_found", "There is no mail server of the demo here.")
    return JSONResponse(await hooks.mail(), headers={"cache-control": "no-store"})


@Operation("POST", "/demo/stress", "Provoke an alert", {202: dict[str, Any]}, "notices:write", problems=("not_found",))
async def _stress(request: Request) -> Response:
    hooks = _hooks(request, "notices:write")
    if hooks.stress is None:
        raise Problem("not_found", "Nothing can be provoked here.")
    await hooks.stress()
    return JSONResponse({}, 202)


CALLS = (_demo, _mail, _stress)
