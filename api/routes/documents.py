"""`/openapi.json` and `/asyncapi.json`: what this gateway speaks, made once from its own routes and frames; and
`/docs`, a page that shows both. They hold no secret and are static files to whoever asks: no token is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from api.documents.asyncapi import asyncapi
from api.documents.openapi import openapi
from api.documents.operations import Call, Operation
from api.http import page
from api.http.requests import JSON, gateway_of

KEPT = {200: dict[str, Any], 304: None}


@Operation("GET", "/openapi.json", "The calls, as OpenAPI 3.1", KEPT, scope=None, etag=True)
async def _openapi(request: Request) -> Response:
    settings, calls = gateway_of(request).settings, [r for r in request.app.routes if isinstance(r, Call)]
    return await _document(request, lambda: openapi(calls, settings.limits, settings.catalogue.entity_types))


@Operation("GET", "/asyncapi.json", "The live channels, as AsyncAPI 3.0", KEPT, scope=None, etag=True)
async def _asyncapi(request: Request) -> Response:
    return await _document(request, lambda: asyncapi(gateway_of(request).settings.limits))


@Operation("GET", "/docs", "Both, to be read by people", {200: {"text/html": None}}, scope=None)
async def _page(_request: Request) -> Response:
    return FileResponse(page.DIRECTORY / "docs.html", headers={"cache-control": "no-cache"}, media_type="text/html")


async def _document(request: Request, make: Callable[[], dict[str, Any]]) -> Response:
    held: dict[str, tuple[bytes, str]] = request.app.state.documents
    path = request.url.path
    if path not in held:
        made = await asyncio.to_thread(lambda: orjson.dumps(make()))
        held[path] = made, f'"{hashlib.sha256(made).hexdigest()[:32]}"'
    body, tag = held[path]
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={"etag": tag})
    return Response(body, 200, {"etag": tag}, JSON)


CALLS = (_openapi, _asyncapi, _page)
