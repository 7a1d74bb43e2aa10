"""The judge of the last hop: each mail at most once, but for the two windows that are stated, which are counted."""

from __future__ import annotations

import json
from itertools import pairwise

from tests.chaos.evidence import Evidence, events
from topics.catalogue import DELIVERIES
from topics.events import DeliveryFailed, DeliveryRequested, DeliverySent

SLACK_S = 0.5  # a killed sender's last words may still lie in a socket when the server accepts them


def mailed(found: Evidence) -> dict[str, int]:
    """Each mail at most once, but for the two windows of the last hop; and never by nobody's wish."""
    asked = {e.delivery_id: e for _, e in events(found, DELIVERIES) if isinstance(e, DeliveryRequested)}
    by_message = {e.message_id: e for e in asked.values()}
    assert len(by_message) == len(asked), "one Message-ID for two deliveries"
    assert found.taken.keys() <= by_message.keys(), "a mail that nobody asked for"
    for message in found.taken:
        assert found.sent_to[message] == json.loads(by_message[message].body)["address"], "a mail to somebody else"
    sent: dict[str, int] = {}
    ends = {"sent": 0, "cancelled": 0}
    for record, e in events(found, DELIVERIES):
        assert not isinstance(e, DeliveryFailed), f"given up: {e}"
        if isinstance(e, DeliverySent):
            sent.setdefault(asked[e.delivery_id].message_id, record.timestamp)
    assert sent.keys() <= found.taken.keys(), "said to be sent, and never taken"
    for r in found.rows["delivery_results"]:
        assert r["outcome"] in ends, f"a delivery has no end: {r}"
        ends[r["outcome"]] += 1
        message = asked[r["delivery_id"]].message_id
        assert (r["outcome"] == "sent") == (message in sent), "the rows say other than the log what was sent"
    assert len(found.rows["delivery_results"]) == len(asked), "a delivery has no end"
    killed = frozen = 0
    for message, at in found.taken.items():
        for one, next_one in pairwise(at):
            if any(one - SLACK_S <= k <= next_one for k in found.sender_kills):
                killed += 1
                continue
            assert any(b <= next_one and e + SLACK_S >= one for b, e in found.sender_freezes), (
                f"{message} taken at {at}, and no sender was killed or frozen in between"
            )
            frozen += 1
        assert len(at) == 1 or message not in sent or sent[message] >= int((at[-1] - SLACK_S) * 1000), (
            "sent again although the log said that it was sent"
        )
    return {
        "mails": len(found.taken),
        "mails doubled by a kill (window 1)": killed,
        "mails doubled by a freeze (window 2)": frozen,
        "recalled in time": ends["cancelled"],
    }
