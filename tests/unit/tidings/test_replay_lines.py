"""How `tidings replay` shows events, and whom they concern."""

import json
from typing import Any

from tidings.cli.replay import as_line
from topics.events import EntityChanged, Event, Lane, NoticeMarked, NoticeRequested, Record
from topics.fetch import Broken
from topics.record_json import as_members
from topics.selection import concerns

HEAD: dict[str, Any] = {"event_id": "e1", "producer": "test", "occurred_at": 1}


def placed(event: Event | None, key: str = "17") -> Record:
    return Record("notices", 2, 45, 1767225600123, key, event)


def requested(users: tuple[str, ...], lanes: tuple[Lane, ...] = ()) -> NoticeRequested:
    return NoticeRequested(
        **HEAD,
        subject="panel",
        key=None,
        request_key="r",
        users=users,
        lanes=lanes,
        forward="",
        severity="info",
        entity_type=None,
        entity_id=None,
        body=b"{}",
    )


def test_a_line_tells_when_where_and_what() -> None:
    event = EntityChanged(**HEAD, entity_type="vm", entity_id="17", op="updated", body=b'{"cpu":95}')
    assert as_line(placed(event)) == (
        '2026-01-01T00:00:00.123Z notices[2]@45 EntityChanged entity_type=vm entity_id=17 op=updated body={"cpu": 95}'
    )


def test_json_is_complete_and_its_bodies_are_json() -> None:
    event = EntityChanged(**HEAD, entity_type="vm", entity_id="17", op="updated", body=b'{"cpu":95}')
    found = json.loads(json.dumps(as_members(placed(event))))
    assert found["at"] == "2026-01-01T00:00:00.123Z"
    value = found["value"]
    assert (found["event"], value["event_id"], value["body"]) == ("EntityChanged", "e1", {"cpu": 95})


def test_a_body_whose_key_is_gone_is_shown_as_erased() -> None:
    event = EntityChanged(**HEAD, entity_type="vm", entity_id="17", op="updated", body_key="k1", body=b"\x01\x02")
    assert as_members(placed(event))["value"]["body"] == "erased"


def test_what_can_not_be_decoded_is_shown_too() -> None:
    broken = Broken("notices", 0, 7, 1767225600123, b"\xff", b"junk", "not an Avro single-object encoding")
    assert "undecodable (not an Avro" in as_line(broken)
    assert as_members(broken)["hex"] == "6a756e6b"
    assert as_line(placed(None)).endswith("deleted '17'")


def test_an_event_concerns_whom_it_names() -> None:
    marked = NoticeMarked(**HEAD, user="u1", cmd="c", mark="read", ids=(), up_to=None, until=None)
    assert concerns(placed(marked), "u1")
    assert not concerns(placed(marked), "u2")
    assert concerns(placed(requested(("u1", "u2"))), "u2")
    assert concerns(placed(requested(("u1",), (Lane("email", "email", "recipient", "u3", 0),))), "u3")
    assert not concerns(placed(requested(("u1",), (Lane("email", "email", "address", "u3", 0),))), "u3")
