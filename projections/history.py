"""One user's inbox as it was at a time of the log: the folds that the rows are made by, run over that user's records up
to then, of `notices` and `deliveries` and of nothing else.
"""

from __future__ import annotations

from typing import Any

from projections.box import Box
from projections.notice import STATES, Notice
from projections.notices import apply
from projections.outgoing import Refused
from projections.sql.truths import RESULTS, after_result
from projections.sql.views.notices import Cursor, Delivery
from topics.catalogue import DELIVERIES, NOTICES
from topics.events import Record

TOPICS = (NOTICES, DELIVERIES)


class Past:
    """The fold; `take` every record of the user's key on TOPICS, each topic in its order."""

    def __init__(self) -> None:
        self._box = Box()
        self._results: dict[str, dict[str, Any]] = {}

    def take(self, record: Record) -> None:
        """Fold one record. What is refused stands on `dead-letters`, and is skipped here as there."""
        if record.topic == DELIVERIES:
            if isinstance(e := record.event, RESULTS):
                self._results[e.delivery_id] = after_result(self._results.get(e.delivery_id), record)
            return
        try:
            apply(self._box, record)
        except Refused:
            return
        finally:
            self._box.touched.clear()

    @property
    def deliveries(self) -> dict[str, Delivery]:
        """Delivery id to what had come of it."""
        return {i: Delivery(row["outcome"], row["reason"]) for i, row in self._results.items()}

    @property
    def counts(self) -> dict[str, int]:
        """`unread` and `unseen`."""
        mine = self._box.notices.values()
        return {"unread": sum(n.unread for n in mine), "unseen": sum(n.unseen for n in mine)}

    def page(self, state: str, *, before: Cursor | None, limit: int) -> list[Notice]:
        """At most `limit` notices, newest first; `state` a key of STATES."""
        chosen = [n for n in self._box.notices.values() if n.place in STATES[state]]
        chosen.sort(key=_place, reverse=True)
        return [n for n in chosen if before is None or _place(n) < tuple(before)][:limit]


def _place(notice: Notice) -> tuple[int, str]:
    return notice.raised_offset, notice.notice_id
