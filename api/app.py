"""The gateway as an ASGI application (WebSockets are none of it). Memory and reader live as long as its lifespan."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from api.gateway import Gateway
from api.http import page
from api.http.archive import Archive
from api.http.observed import Observed
from api.live import sse
from api.problems import Problem
from api.routes import (
    alert_configs,
    demo,
    documents,
    entities,
    health,
    history,
    me,
    notices,
    recipients,
    silences,
    tokens,
    why,
)
from api.settings import GatewaySettings

_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}


def create_app(settings: GatewaySettings) -> Starlette:
    """The application. ValueError for settings that can't be right; the gateway itself is `app.state.gateway`."""
    gateway = Gateway(settings)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await gateway.start()
        if settings.reuse_port:  # others listen there, too: nobody is sent here before this one can answer
            await gateway.settled()
        try:
            yield
        finally:
            await gateway.stop()

    app = Starlette(
        routes=[
            *sse.CALLS,
            *entities.CALLS,
            *alert_configs.CALLS,
            *recipients.CALLS,
            *notices.CALLS,
            *why.CALLS,
            *history.CALLS,
            *silences.CALLS,
            *me.CALLS,
            *tokens.CALLS,
            *health.CALLS,
            *(demo.CALLS if settings.demo else ()),
            *documents.CALLS,
            *page.routes(),
        ],
        middleware=[Middleware(page.SecurityHeaders), Middleware(Observed, metrics=gateway.metrics)],
        exception_handlers={Problem: _refused, HTTPException: _not_served},
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.state.documents = {}
    app.state.archive = Archive(settings.cluster, settings.catalogue)
    return app


async def _refused(_request: Request, error: Exception) -> Response:
    return error.response() if isinstance(error, Problem) else Problem("internal").response()


async def _not_served(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = {}
    if status == 405:
        known = [r for r in request.app.routes if isinstance(r, Route) and r.matches(request.scope)[0] is Match.PARTIAL]
        headers["allow"] = ", ".join(sorted({m for r in known if r.path == known[0].path for m in r.methods or ()}))
    return Problem(_BY_STATUS.get(status, "bad_request"), headers=headers).response()
