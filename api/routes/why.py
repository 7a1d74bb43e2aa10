"""`/v1/notices/{id}/why`: the whole story of one notice, from the log. The rows only say where on the log it begins.

Everybody may ask for their own notices, and learns of the other receivers only how many they are; the scope `audit` may
ask for anybody's, with `?user=`, and is told everything.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from api.access.tokens import Identity, is_id
from api.documents import answers
from api.documents.operations import AT_LEAST, READS, Operation, Param
from api.http.archive import archive_of
from api.http.requests import JSON, at_least, caller, gateway_of, path_id
from api.problems import Problem
from projections.explain import Story, story
from projections.narration import private
from projections.sql.views import notices
from projections.story_json import story_members
from topics.evidence import Receiver, evidence_of

AUDIT = "audit"


@Operation(
    "GET",
    "/v1/notices/{id}/why",
    "The whole story of one notice",
    {200: answers.Story},
    params=(Param("user", "Whose notice; of others with the scope `audit`."), AT_LEAST),
    problems=(*READS, "forbidden", "bad_field", "bad_request", "not_found", "log_away", "busy"),
)
async def _why(request: Request) -> Response:
    identity, gateway, notice_id = caller(request), gateway_of(request), path_id(request)
    user = whose(request, identity)
    await at_least(request)
    rows = await gateway.database.read(notices.by_ids, user, [notice_id])
    if not rows:
        raise Problem("not_found")
    async with archive_of(request).reading() as reader:
        evidence = await evidence_of(reader, notice_id, Receiver(user, rows[0].raised_offset))
    found = story(user, notice_id, evidence)
    if found is None:
        raise Problem("not_found")
    members = story_members(found if identity.may(AUDIT) else _own(found, identity))
    return Response(orjson.dumps(members), 200, {"cache-control": "no-store"}, JSON)


def whose(request: Request, identity: Identity) -> str:
    """Whose notices are meant: `?user=`, by default the caller's. Problem `forbidden` without the scope for others."""
    user = request.query_params.get("user", identity.user)
    if not is_id(user):
        raise Problem("bad_request", "`user` has 1 to 200 characters and no control characters.")
    if user != identity.user:
        identity.need(AUDIT)
    return user


def _own(found: Story, identity: Identity) -> Story:
    def sees(entity_type: str, value: dict[str, Any]) -> bool:
        enforced = identity.filters.get(entity_type)
        return identity.may(f"entities:read:{entity_type}") and (enforced is None or enforced.matches(value))

    return found.shown(lambda m: private(m, found.user, sees))


CALLS = (_why,)
