"""`/demo…`: what `tidings up` adds to its page; elsewhere these paths don't exist."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.problems import Problem
from api.requests import caller, gateway_of
from api.settings import DemoHooks


def routes() -> list[Route]:
    """The routes."""
    return [
        Route("/demo", _demo, methods=["GET"]),
        Route("/demo/mail", _mail, methods=["GET"]),
        Route("/demo/stress", _stress, methods=["POST"]),
    ]


def _hooks(request: Request, scope: str | None = None) -> DemoHooks:
    caller(request, scope)
    hooks = gateway_of(request).settings.demo
    if hooks is None:
        raise Problem("not_found", "There is no demo here.")
    return hooks


async def _demo(request: Request) -> Response:
    hooks = _hooks(request)
    return JSONResponse({"mail": hooks.mail is not None, "stress": hooks.stress is not None})


async def _mail(request: Request) -> Response:
    hooks = _hooks(request, "audit")
    if hooks.mail is None:
        raise Problem("not_found", "There is no mail server of the demo here.")
    return JSONResponse(await hooks.mail(), headers={"cache-control": "no-store"})


async def _stress(request: Request) -> Response:
    hooks = _hooks(request, "notices:write")
    if hooks.stress is None:
        raise Problem("not_found", "Nothing can be provoked here.")
    await hooks.stress()
    return JSONResponse({}, 202)
