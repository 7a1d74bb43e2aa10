"""`/healthz`: this process lives. `/readyz`: it has caught up with the log, and the rows are of that log."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.documents.answers import Health, Readiness
from api.documents.operations import Operation
from api.http.requests import gateway_of
from api.problems import Problem


@Operation("GET", "/healthz", "Whether this process lives", {200: Health}, scope=None)
async def _healthz(_request: Request) -> Response:
    return JSONResponse({"status": "ok"})


@Operation("GET", "/readyz", "Whether it has caught up", {200: Readiness, 503: Readiness}, scope=None)
async def _readyz(request: Request) -> Response:
    """What is waited for is told, so that nobody has to guess."""
    gateway = gateway_of(request)
    waiting = gateway.waits_for()
    if not waiting:
        try:
            waiting = [f"rows of {topic}" for topic in await gateway.missing_positions()]
        except Problem as problem:
            waiting = [problem.title]
    status = {"ready": not waiting, "waiting_for": waiting}
    return JSONResponse(status, 503 if waiting else 200)


CALLS = (_healthz, _readyz)
