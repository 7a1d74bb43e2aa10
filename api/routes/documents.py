"""`/openapi.json` and `/asyncapi.json`: what this gateway speaks, made once from its own routes and frames; and
`/docs`, a page that shows both. They hold no secret and are static files to whoever asks: no token is needed.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from api.documents.asyncapi import asyncapi
from api.documents.openapi import openapi
from api.documents.operations import Call, Operation
from api.http import page
from api.http.requests import JSON
from api.settings import GatewaySettings

ANY_JSON = dict[str, Any]


def routes(others: Sequence[Call], settings: GatewaySettings) -> list[Call]:
    """The routes; `others` are those of the gateway beside them."""
    held: dict[str, tuple[bytes, str]] = {}

    async def document(request: Request, make: Callable[[], dict[str, Any]]) -> Response:
        path = request.url.path
        if path not in held:
            made = await asyncio.to_thread(lambda: orjson.dumps(make()))
            held[path] = made, f'"{hashlib.sha256(made).hexdigest()[:32]}"'
        body, tag = held[path]
        if tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": tag})
        return Response(body, 200, {"etag": tag}, JSON)

    async def _openapi(request: Request) -> Response:
        return await document(
            request, lambda: openapi((*others, *ours), settings.limits, settings.catalogue.entity_types)
        )

    async def _asyncapi(request: Request) -> Response:
        return await document(request, lambda: asyncapi(settings.limits))

    kept = {200: ANY_JSON, 304: None}
    ours = [
        Call("GET", "/openapi.json", _openapi, Operation("The calls, as OpenAPI 3.1", kept, None, etag=True)),
        Call(
            "GET", "/asyncapi.json", _asyncapi, Operation("The live channels, as AsyncAPI 3.0", kept, None, etag=True)
        ),
        Call("GET", "/docs", _page, Operation("Both, to be read by people", {200: {"text/html": None}}, None)),
    ]
    return ours


async def _page(_request: Request) -> Response:
    return FileResponse(page.DIRECTORY / "docs.html", headers={"cache-control": "no-cache"}, media_type="text/html")
