"""`/v1/me`: what the page has to know about whoever signed in."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.documents.answers import Me
from api.documents.operations import Operation
from api.http.requests import caller, gateway_of


@Operation("GET", "/v1/me", "Whoever the token is of", {200: Me})
async def _me(request: Request) -> Response:
    identity, gateway = caller(request), gateway_of(request)
    readable = [t for t in gateway.types if identity.may(f"entities:read:{t}")]
    answer = {
        "user": identity.user,
        "scopes": sorted(identity.scopes),
        "entity_types": readable,
        "demo": gateway.settings.demo is not None,
    }
    return JSONResponse(answer, headers={"cache-control": "no-store"})


CALLS = (_me,)
