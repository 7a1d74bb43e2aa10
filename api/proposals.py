"""Changes of configs and recipients: a proposal on `commands`, and the wait for its turn on the log.

What stands is decided there and nowhere else: the loser of two edits gets 412, whatever this gateway saw before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from api.http.etags import etag
from api.problems import Problem
from api.sending import put
from projections.sql.views import proposals
from topics.catalogue import COMMANDS
from topics.events import ConfigProposed, RecipientProposed
from topics.ids import new_id
from topics.produce import now_us

if TYPE_CHECKING:
    from api.gateway import Gateway


@dataclass(frozen=True, slots=True)
class Accepted:
    """`version` is null while the read model does not have it yet; `position` names the proposal on `commands`."""

    version: int | None
    position: str


@dataclass(frozen=True, slots=True)
class Refused:
    """`outcome` is version, exists or missing; `version` is what stands."""

    outcome: str
    version: int | None

    def problem(self) -> Problem:
        """As an answer."""
        if self.outcome == "exists":
            return Problem("exists")
        if self.outcome == "missing" or self.version is None:
            headers = {} if self.version is None else {"etag": etag(self.version)}
            return Problem("not_found" if self.outcome == "missing" else "version_conflict", headers=headers, etag=None)
        return Problem("version_conflict", headers={"etag": etag(self.version)}, etag=etag(self.version))


async def propose(gateway: Gateway, proposal: ConfigProposed | RecipientProposed) -> Accepted | Refused:
    """Send it and wait, for a bounded time, until the rows have what was decided. Problem `log_away`."""
    kind, subject = (
        ("config", proposal.config_id) if isinstance(proposal, ConfigProposed) else ("recipient", proposal.recipient_id)
    )
    placed = await put(gateway, COMMANDS, subject, proposal)
    position = gateway.position_after(placed)
    found: proposals.Outcome | None = await gateway.database.until(
        lambda: gateway.database.read(proposals.outcome, kind, subject, proposal.event_id), gateway.settings.limits.wait
    )
    if found is None:
        return Accepted(None, position)
    if found.outcome == "accepted":
        return Accepted(found.version, position)
    return Refused(found.outcome, found.version)


def stamp(gateway: Gateway) -> dict[str, Any]:
    """What every event of a request has."""
    return {"event_id": new_id(), "producer": gateway.producer.name, "occurred_at": now_us()}
