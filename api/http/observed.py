"""Round everything that is answered: an id for it, how long it took until the answer began, and an answer where it
broke.
"""

from __future__ import annotations

import logging
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http.request_ids import HEADER, current, request_id
from api.metrics import Metrics
from api.problems import Problem

log = logging.getLogger(__name__)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD")
ANSWERS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class Observed:
    """Names requests, counts them, and how long it took until they were answered."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        name = request_id(Headers(scope=scope).get(HEADER))
        current.set(name)
        began, answered = time.perf_counter(), False

        async def named(message: Message) -> None:
            nonlocal answered
            if message["type"] in ANSWERS:
                answered = True
                MutableHeaders(scope=message).append(HEADER, name)
                self._count(scope, message.get("status"), began)
            await send(message)

        try:
            await self._app(scope, receive, named)
        except Exception as error:
            if answered or scope["type"] != "http":
                raise
            log.exception("request failed method=%s error=%s", scope["method"], type(error).__name__)
            await Problem("internal").response()(scope, receive, named)

    def _count(self, scope: Scope, status: int | None, began: float) -> None:
        if scope["type"] == "http":
            method = scope["method"] if scope["method"] in METHODS else "other"
            self._metrics.requests.labels(method, str(status)).observe(time.perf_counter() - began)
