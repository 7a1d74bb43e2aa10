"""The gateway as an ASGI application. Its memory and its reader live as long as its lifespan."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api import page
from api.archive import Archive
from api.gateway import Gateway
from api.metrics import Metrics
from api.operations import Call
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
from api.websocket import websocket

log = logging.getLogger(__name__)
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

    calls: list[Call] = [
        *entities.routes(),
        *alert_configs.routes(),
        *recipients.routes(),
        *notices.routes(),
        *why.routes(),
        *history.routes(),
        *silences.routes(),
        *me.routes(),
        *tokens.routes(),
        *health.routes(),
        *(demo.routes() if settings.demo else ()),
    ]
    app = Starlette(
        routes=[WebSocketRoute("/v1/ws", websocket), *calls, *documents.routes(calls), *page.routes()],
        middleware=[Middleware(Timed, metrics=gateway.metrics), Middleware(page.SecurityHeaders)],
        exception_handlers={Problem: _refused, HTTPException: _not_served, Exception: _broken},
        lifespan=lifespan,
    )
    app.state.gateway = gateway
    app.state.archive = Archive(settings.cluster, settings.catalogue)
    return app


class Timed:
    """Counts requests and how long they took."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), ["500"]

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            method = (
                scope["method"] if scope["method"] in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD") else "other"
            )
            self._metrics.requests.labels(method, status[0]).observe(time.perf_counter() - began)


async def _refused(_request: Request, error: Exception) -> Response:
    return error.response() if isinstance(error, Problem) else Problem("internal").response()


async def _not_served(_request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    return Problem(_BY_STATUS.get(status, "bad_request"), headers=headers).response()


async def _broken(request: Request, error: Exception) -> Response:
    log.error("request failed method=%s error=%s", request.method, type(error).__name__, exc_info=error)
    return Problem("internal").response()
