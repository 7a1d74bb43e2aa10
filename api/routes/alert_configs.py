"""`/v1/alert-configs`: the configurator. The body is kept as its text, so that `metric` reaches the alert byte for
byte.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import Request

from api.access.tokens import is_id
from api.documents.answers import ConfigPage, OneConfig
from api.documents.operations import Param
from api.gateway import Gateway
from api.http.requests import gateway_of, json_object, listed
from api.live.frames import quoted, when
from api.notices.lanes import Forward, resolve
from api.problems import Problem, valid
from api.proposals import stamp
from api.things import Change, Kind, with_id
from projections.sql.views import alert_configs
from projections.sql.views.alert_configs import Thing
from topics.catalogue import ALERT_CONFIGS
from topics.events import ConfigProposed
from topics.json_text import depth, joined

Entry = Annotated[str, Field(min_length=1, max_length=500)]
ENTRIES = 1_000
DEEPEST = 100


class AlertConfig(BaseModel):
    """What of a config has a meaning here; further members are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(min_length=1, max_length=100)
    channel: dict[str, list[Entry]]
    metric: Any = None
    enabled: bool = Field(default=True, strict=True)
    forward: Forward | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, given: str) -> str:
        if not is_id(given) or given.strip() != given:
            raise ValueError("no control characters and no white space around it")
        return given

    @field_validator("channel")
    @classmethod
    def _channel(cls, given: dict[str, list[str]]) -> dict[str, list[str]]:
        if sum(map(len, given.values())) > ENTRIES:
            raise ValueError(f"at most {ENTRIES} entries")
        return given


async def _page(request: Request, after: str, limit: int) -> list[Thing]:
    name = request.query_params.get("name")
    return await gateway_of(request).database.read(alert_configs.page, name, after, limit)


async def _one(gateway: Gateway, config_id: str) -> Thing | None:
    return await gateway.database.read(alert_configs.one, config_id)


async def _proposal(gateway: Gateway, wanted: Change) -> ConfigProposed:
    if wanted.op == "delete":
        now = await _one(gateway, wanted.id)
        name = str(json_object(now.body).get("name", "")) if now else ""
        body = joined({"id": quoted(wanted.id)}).encode()
        return _event(gateway, wanted, name=name, enabled=False, lanes=(), forward="", body=body)
    parts = with_id(wanted.id, wanted.text)
    if depth(wanted.text) > DEEPEST:
        raise Problem("bad_json", f"Nested too deeply: programs in every language follow {DEEPEST} levels.")
    config = valid(AlertConfig, json_object(wanted.text))
    lanes = await resolve(gateway, config.channel, config.forward, round(gateway.settings.forward_after * 1000))
    parts.setdefault("enabled", "true")
    forward = parts.get("forward", "")
    return _event(
        gateway,
        wanted,
        name=config.name,
        enabled=config.enabled,
        lanes=lanes,
        forward="" if forward == "null" else forward,
        body=joined(parts).encode(),
    )


def _event(gateway: Gateway, wanted: Change, **fields: Any) -> ConfigProposed:
    return ConfigProposed(**stamp(gateway), config_id=wanted.id, op=wanted.op, based_on=wanted.based_on, **fields)


async def _reports(gateway: Gateway, ids: list[str]) -> dict[str, dict[str, str]]:
    """The last words of the alert programs about these configs."""
    found = await gateway.database.read(alert_configs.reports, ids)
    return {
        config_id: {
            "reports": listed(
                joined({"kind": quoted(r.kind), "text": quoted(_said(r.text)), "at": when(r.at)})
                for r in reports
                if r.kind == "error"
            )
        }
        for config_id, reports in found.items()
    }


def _said(body: str) -> str:
    """The words of a report: its body is JSON text with the member `text`."""
    try:
        return str(json_object(body).get("text", body))
    except Problem:
        return body


CALLS = Kind(
    room="alert-configs",
    what="an alert config",
    topic=ALERT_CONFIGS,
    scope="configs",
    takes=AlertConfig,
    shown=OneConfig,
    listed=ConfigPage,
    posted=True,
    one=_one,
    page=_page,
    proposal=_proposal,
    added=_reports,
    filters=(Param("name", "Only those of this alert."),),
).calls()
