"""`/v1/recipients`: people and where they can be reached. A recipient's id is the user id of the tokens."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator
from starlette.requests import Request

from api.documents.answers import OneRecipient, RecipientPage
from api.gateway import Gateway
from api.http.requests import gateway_of, json_object
from api.live.frames import quoted
from api.notices.addresses import is_address
from api.preferences import Preferences, TimeZone, checked
from api.problems import valid
from api.proposals import stamp
from api.things import Change, Kind, with_id
from projections.sql.views import recipients
from projections.sql.views.alert_configs import Thing
from topics.catalogue import RECIPIENTS
from topics.events import RecipientProposed
from topics.json_text import joined


class Recipient(BaseModel):
    """A recipient as it is sent; further members are kept as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str = Field(default="", max_length=300)
    addresses: dict[str, Annotated[str, Field(min_length=1, max_length=500)]] = Field(
        default_factory=dict, max_length=50
    )
    locale: str | None = Field(default=None, max_length=50)
    time_zone: TimeZone | None = None
    preferences: Preferences | None = None

    @field_validator("addresses")
    @classmethod
    def _addresses(cls, given: dict[str, str]) -> dict[str, str]:
        for channel, address in given.items():
            if not is_address(channel, address):
                raise ValueError(f"{address[:100]!r} is no address of {channel}")
        return given


async def _page(request: Request, after: str, limit: int) -> list[Thing]:
    return await gateway_of(request).database.read(recipients.page, after, limit)


async def _one(gateway: Gateway, recipient_id: str) -> Thing | None:
    return await gateway.database.read(recipients.one, recipient_id)


async def _proposal(gateway: Gateway, wanted: Change) -> RecipientProposed:
    parts = {"id": quoted(wanted.id)}
    if wanted.op != "delete":
        parts, value = with_id(wanted.id, wanted.text), json_object(wanted.text)
        valid(Recipient, value)
        if value.get("preferences") is not None:
            checked(value["preferences"], gateway.settings.channels)
    return RecipientProposed(
        **stamp(gateway), recipient_id=wanted.id, op=wanted.op, based_on=wanted.based_on, body=joined(parts).encode()
    )


CALLS = Kind(
    room="recipients",
    what="a recipient",
    topic=RECIPIENTS,
    scope="recipients",
    takes=Recipient,
    shown=OneRecipient,
    listed=RecipientPage,
    posted=False,
    one=_one,
    page=_page,
    proposal=_proposal,
).calls()
