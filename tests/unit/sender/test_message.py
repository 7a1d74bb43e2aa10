"""What a mail says, and that nothing in it can become a header or change between attempts."""

from __future__ import annotations

import json
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sender.channels.email import as_bytes, connection_settings
from sender.delivery import Delivery
from sender.message import Unreadable, message_of

BODY = {
    "address": "ann@example.test",
    "title": "cpu of web-1 is 95%",
    "text": "It has been above 90% for 5 minutes.",
    "severity": "critical",
    "link": "https://panel.example.test/vm/17",
    "alert": "overuse",
    "name": "Ann",
}


def delivery(body: str, **more: Any) -> Delivery:
    given: dict[str, Any] = {
        "delivery_id": "d1",
        "user": "u1",
        "notice_id": "n1",
        "partition": 0,
        "offset": 1,
        "channel": "email",
        "message_id": "<d1@tidings>",
        "deadline_at": 2,
        "requested_at": 1_764_000_000_000,
        "body": body,
    }
    return Delivery(**given | more)


def mail(**more: Any) -> EmailMessage:
    return parsed(as_bytes(message_of(delivery(json.dumps(BODY | more))), "Tidings <tidings@example.test>"))


def parsed(raw: bytes) -> EmailMessage:
    return message_from_bytes(raw, policy=default)


def test_a_mail_says_what_where_and_why() -> None:
    found = mail()
    assert found["Subject"] == "[CRITICAL] cpu of web-1 is 95%"
    assert found["To"] == "Ann <ann@example.test>"
    assert found["Message-ID"] == "<d1@tidings>"
    assert found["Date"] == "Mon, 24 Nov 2025 16:00:00 +0000"
    assert found["X-Tidings-Notice"] == "n1"
    assert found["List-Id"] == "<overuse.tidings>"
    assert found.get_content_type() == "text/plain"
    assert found.get_content().replace("\r\n", "\n") == (
        "Hello Ann,\n\nIt has been above 90% for 5 minutes.\n\nhttps://panel.example.test/vm/17\n\n-- \n"
        "The alert “overuse” raised this notice for u1. It was forwarded because it was still unread "
        "(2025-11-24 16:00 UTC).\nNotice n1\n"
    )


def test_a_plain_notice_has_no_prefix_and_a_raw_address_is_told_that_it_is_one() -> None:
    message = message_of(delivery(json.dumps(BODY | {"severity": "warning"}), user="email:ann@example.test"))
    assert message.subject == "cpu of web-1 is 95%"
    assert "sent this notice to this address" in message.plain_text()


DIGEST = {
    "title": "3 notices",
    "text": "- a is full\n  /a\n\n- b is full\n\nand 1 more",
    "count": 3,
    "notices": ["a", "b"],
}


def test_a_digest_says_how_many_and_why_they_came_together() -> None:
    found = mail(**DIGEST, link=None)
    assert found["Subject"] == "[CRITICAL] 3 notices of overuse"
    assert found.get_content().replace("\r\n", "\n") == (
        "Hello Ann,\n\n- a is full\n  /a\n\n- b is full\n\nand 1 more\n\n-- \n"
        "These 3 notices of the alert “overuse” for u1, still unread, were collected into one message "
        "(2025-11-24 16:00 UTC).\n"
    )
    of_all = message_of(delivery(json.dumps(BODY | DIGEST | {"alert": None, "severity": "info"})))
    assert of_all.subject == "3 notices"
    assert "These 3 notices for u1, still unread, were" in of_all.plain_text()
    nobody = message_of(delivery(json.dumps(BODY | DIGEST), user="email:ann@example.test"))
    assert "for this address were collected" in nobody.plain_text()


def test_a_digest_of_one_is_that_notice() -> None:
    message = message_of(delivery(json.dumps(BODY | {"count": 1, "text": "- cpu of web-1 is 95%"})))
    assert message.subject == "[CRITICAL] cpu of web-1 is 95%"
    assert "It was forwarded because it was still unread" in message.plain_text()


def test_a_repeat_says_since_when_it_stands() -> None:
    message = message_of(delivery(json.dumps(BODY | {"repeat": True, "raised_at": 1_763_990_000_000})))
    assert message.subject == "[CRITICAL] Still open: cpu of web-1 is 95%"
    assert "\n\nThis is open since 2025-11-24 13:13 UTC.\n\nIt has been above" in message.plain_text()
    assert "sent again because it is not over and still unread" in message.plain_text()
    nobody = message_of(delivery(json.dumps(BODY | {"repeat": True}), user="email:ann@example.test"))
    assert "for this address. It was sent again because it is not over (" in nobody.plain_text()


def test_what_is_over_is_not_critical_any_more() -> None:
    body = BODY | {"title": "Resolved: cpu of web-1 is 95%", "resolved_at": 1_763_999_000_000}
    message = message_of(delivery(json.dumps(body)))
    assert message.subject == "Resolved: cpu of web-1 is 95%"
    assert "\n\nThis is over since 2025-11-24 15:43 UTC.\n\n" in message.plain_text()
    assert "You hear that it is over because you were told of it" in message.plain_text()


@pytest.mark.parametrize("odd", [True, "1", -1, 10**30, 1.5, [], None])
def test_odd_numbers_in_a_body_say_nothing(odd: object) -> None:
    given = dict.fromkeys(("count", "raised_at", "resolved_at", "repeat"), odd) | {"repeat": "yes"}
    message = message_of(delivery(json.dumps(BODY | given)))
    assert (message.count, message.raised_at, message.resolved_at, message.repeated) == (0, None, None, False)
    assert message.plain_text() == message_of(delivery(json.dumps(BODY))).plain_text()


def test_repeats_are_the_same_bytes() -> None:
    message = message_of(delivery(json.dumps(BODY | {"text": "ä\n.\n..\n" + "x" * 3000})))
    assert len({as_bytes(message, "t@example.test") for _ in range(5)}) == 1


HEADERS = {"From", "To", "Subject", "Date", "Message-ID", "List-Id", "Auto-Submitted", "X-Tidings-Notice"}
MIME = {"Content-Type", "Content-Transfer-Encoding", "MIME-Version"}


@given(st.fixed_dictionaries({k: st.text(max_size=60) for k in ("title", "text", "link", "alert", "name")}))
def test_no_value_can_add_a_header(values: dict[str, str]) -> None:
    injected = {k: f"{v}\r\nBcc: all@example.test\r\n\r\nother body" for k, v in values.items()}
    for found in (mail(**injected), mail(**values)):
        assert set(found.keys()) == HEADERS | MIME
        assert found["Bcc"] is None


def test_ids_from_elsewhere_are_made_fit_for_headers() -> None:
    message = message_of(delivery(json.dumps(BODY), message_id="a\r\nBcc: x@y", notice_id="n\n1"))
    found = parsed(as_bytes(message, "t@example.test"))
    assert found["Message-ID"] == "<a--Bcc--x-y@tidings>"
    assert found["X-Tidings-Notice"] == "n-1"


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"address":null}', '{"address":"'])
def test_a_body_that_cannot_be_read_says_so(body: str) -> None:
    with pytest.raises(Unreadable):
        message_of(delivery(body))


def test_half_characters_do_not_stop_a_mail() -> None:
    assert "?" in message_of(delivery('{"address":"a@b.test","title":"x","text":"\\ud800"}')).plain_text()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("smtp://localhost", ("localhost", 25, False, None, None, None)),
        ("smtp://u%40x:p%2F@h:2525", ("h", 2525, False, None, "u@x", "p/")),
        ("smtp://h?starttls", ("h", 587, False, True, None, None)),
        ("smtp://h:25?starttls=no", ("h", 25, False, False, None, None)),
        ("smtps://h", ("h", 465, True, None, None, None)),
    ],
)
def test_the_servers_url(url: str, expected: tuple[object, ...]) -> None:
    found = connection_settings(url)
    names = ("hostname", "port", "use_tls", "start_tls", "username", "password")
    assert tuple(found[n] for n in names) == expected


@pytest.mark.parametrize("url", ["http://h", "smtp://", "h:25", "smtp://h:none"])
def test_another_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"TIDINGS_SMTP has to be smtp://"):
        connection_settings(url)
