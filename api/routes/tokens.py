"""`POST /v1/tokens/revoke`: a token, or all that a user was given until now, holds no longer, at any gateway."""

from __future__ import annotations

from typing import Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, model_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from api.access.revocations import FOR_EVER, MARGIN_MS
from api.documents.answers import Revoked
from api.documents.operations import SENDS, Operation
from api.http.requests import body_text, caller, gateway_of, json_object
from api.problems import valid
from api.proposals import stamp
from api.routes.silences import Id
from api.sending import put
from topics.catalogue import CONTROLS
from topics.events import TokenRevoked
from topics.produce import now_us

SCOPE = "tokens"


class Revocation(BaseModel):
    """Either the `id` (`jti`) of a token, and `until` when it holds by itself (without it: for ever); or a `user`."""

    model_config = ConfigDict(extra="forbid")
    id: Id | None = None
    user: Id | None = None
    until: AwareDatetime | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.id is None) == (self.user is None):
            raise ValueError("give either `id`, a token's, or `user`")
        if self.user is not None and self.until is not None:
            raise ValueError("`until` belongs to `id`, and only there")
        return self


@Operation(
    "POST",
    "/v1/tokens/revoke",
    "Revoke a token, or all that a user was given until now",
    {200: Revoked, 202: Revoked},
    SCOPE,
    takes=Revocation,
    problems=SENDS,
)
async def _revoke(request: Request) -> Response:
    """Once this gateway keeps to it; after a bounded time 202. Others read it as soon."""
    caller(request, SCOPE)
    gateway = gateway_of(request)
    wanted = valid(Revocation, json_object(await body_text(request)))
    event = TokenRevoked(
        **stamp(gateway),
        token_id=wanted.id or "",
        until=FOR_EVER if wanted.until is None else int(wanted.until.timestamp() * 1000) + MARGIN_MS,
        user=wanted.user,
        issued_until=0 if wanted.user is None else now_us() // 1000,
    )
    # Keys of their own kind: a token may be named like a user, or like a silence.
    key = f"token:{wanted.id}" if wanted.user is None else f"tokens-of:{wanted.user}"
    placed = await put(gateway, CONTROLS, key, event)
    following = {placed.partition: placed.offset + 1}
    held = await gateway.live.passes(CONTROLS, following, gateway.settings.limits.wait)
    return JSONResponse({"position": gateway.position_after(placed)}, 200 if held else 202)


CALLS = (_revoke,)
