"""A notice as its user gets it: the fields around, and inside them the texts of the stored body as they are (a
`metric` stays unchanged).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from orjson import Fragment

from api.live.frames import rfc3339
from projections.box import HELD
from projections.delivery import delivery_id
from projections.notice import Notice
from projections.sql.views.notices import Delivery
from topics.json_text import members

Deliveries = Mapping[str, Delivery]
SHOWN = ("forward", "repeat", "resolved")
_UNDER_WAY = Delivery("waiting", "")


def notice_text(notice: Notice, body: str, deliveries: Deliveries | None) -> str:
    """The JSON text of one notice; `deliveries` as for `notice_json`."""
    return orjson.dumps(notice_json(notice, body, deliveries)).decode()


def notice_json(notice: Notice, body: str, deliveries: Deliveries | None) -> dict[str, Any]:
    """One notice, for orjson; `deliveries` by their ids. Without them nothing is said of forwards."""
    n, said = notice, members(body).get
    found: dict[str, Any] = {
        "id": n.notice_id,
        "title": Fragment(said("title", "null")),
        "text": Fragment(said("text", "null")),
        "severity": n.severity,
        "alert": n.alert,
        "config": n.config_id,
        "key": n.key,
        "entity": None if n.entity_type is None or n.entity_id is None else {"type": n.entity_type, "id": n.entity_id},
        "metric": Fragment(said("metric", "null")),
        "data": Fragment(said("data", "null")),
        "link": Fragment(said("link", "null")),
        "raised_at": rfc3339(n.raised_at),
        "ended_at": rfc3339(n.ended_at),
        "state": {
            "seen_at": rfc3339(n.seen_at),
            "read_at": rfc3339(n.read_at),
            "archived_at": rfc3339(n.archived_at),
            "snoozed_until": rfc3339(n.snoozed_until),
        },
    }
    if deliveries is not None:
        found["forwards"] = _forwards(n, deliveries)
    return found


def _forwards(notice: Notice, deliveries: Deliveries) -> list[dict[str, str | None]]:
    """Each forward, repeat and word that it is over, with its outcome: waiting, asked, skipped (and why), or what came
    of the delivery. What a digest holds waits, with the reason why it is there; what one carried has its delivery.
    """
    found = []
    for step in notice.steps.values():
        if step.what not in SHOWN:
            continue
        outcome, reason = step.state, step.reason
        if step.state in HELD:
            outcome = "waiting"
        elif step.state == "delivered" and step.told is not None:
            outcome, reason = deliveries.get(delivery_id(notice, step, step.told), _UNDER_WAY)
        said = {
            "what": step.what,
            "channel": step.channel,
            "due_at": rfc3339(step.due_at),
            "outcome": outcome,
            "reason": reason or None,
        }
        found.append(said)
    return found
