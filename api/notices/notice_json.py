"""A notice as its user gets it: the fields around, and inside them the texts of the stored body as they are (a
`metric` stays unchanged).
"""

from __future__ import annotations

from collections.abc import Mapping

from api.live.frames import quoted, when
from projections.box import HELD
from projections.delivery import delivery_id
from projections.notice import Notice
from projections.sql.views.notices import Delivery
from topics.json_text import joined, members

Deliveries = Mapping[str, Delivery]
SHOWN = ("forward", "repeat", "resolved")
_UNDER_WAY = Delivery("waiting", "")


def notice_text(notice: Notice, body: str, deliveries: Deliveries | None) -> str:
    """The JSON text of one notice; `deliveries` by their ids. Without them nothing is said of forwards."""
    n, said = notice, members(body).get
    return (
        f'{{"id":{quoted(n.notice_id)},"title":{said("title", "null")},"text":{said("text", "null")}'
        f',"severity":{quoted(n.severity)},"alert":{_or_null(n.alert)},"config":{_or_null(n.config_id)}'
        f',"key":{_or_null(n.key)},"entity":{_entity(n)},"metric":{said("metric", "null")}'
        f',"data":{said("data", "null")},"link":{said("link", "null")},"raised_at":{when(n.raised_at)}'
        f',"ended_at":{when(n.ended_at)},"state":{{"seen_at":{when(n.seen_at)},"read_at":{when(n.read_at)}'
        f',"archived_at":{when(n.archived_at)},"snoozed_until":{when(n.snoozed_until)}}}'
        f"{'' if deliveries is None else _forwards(n, deliveries)}}}"
    )


def _entity(notice: Notice) -> str:
    if notice.entity_type is None or notice.entity_id is None:
        return "null"
    return joined({"type": quoted(notice.entity_type), "id": quoted(notice.entity_id)})


def _forwards(notice: Notice, deliveries: Deliveries) -> str:
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
            "what": quoted(step.what),
            "channel": quoted(step.channel),
            "due_at": when(step.due_at),
            "outcome": quoted(outcome),
            "reason": quoted(reason) if reason else "null",
        }
        found.append(joined(said))
    return f',"forwards":[{",".join(found)}]'


def _or_null(text: str | None) -> str:
    return "null" if text is None else quoted(text)
