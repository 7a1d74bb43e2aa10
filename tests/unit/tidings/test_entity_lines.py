"""Changes of entities from the shell: what is taken, and what is refused in which words."""

import pytest

from tidings.cli.entity_lines import BadChange, Change, of_line


def test_a_body_keeps_its_text_but_for_white_space() -> None:
    line = '{"id": "17", "body": {"price": 1.10, "name": "a  b"}, "at": "2026-01-01T00:00:00Z", "version": 3}'
    assert of_line(line) == Change("17", "updated", '{"price":1.10,"name":"a  b"}', 3, 1767225600000)


def test_a_deletion_needs_no_body() -> None:
    assert of_line('{"id":"17","op":"deleted"}') == Change("17", "deleted", None)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "a change is no JSON"),
        ("[]", "a change is a JSON object"),
        ('{"id":"1","body":{"x":NaN}}', "NaN is no JSON"),
        ('{"id":"1","body":{"x":"\\ud800"}}', "half a character"),
        ('{"id":17,"body":{}}', "`id` is a text"),
        ('{"id":"","body":{}}', "1 to 200 characters"),
        ('{"id":"1"}', "the body is no JSON"),
        ('{"id":"1","body":[]}', "the body is a JSON object"),
        ('{"id":"1","op":"moved","body":{}}', "`op` is one of"),
        ('{"id":"1","body":{},"version":-1}', "`version` is a whole number"),
        ('{"id":"1","body":{},"version":true}', "`version` is a whole number"),
        ('{"id":"1","body":{},"at":"yesterday"}', "RFC 3339"),
        ('{"id":"1","body":{},"bdoy":{}}', "'bdoy' is no member"),
        ('{"id":"1","body":{"x":"' + "y" * 524_288 + '"}}', "larger than entity_body, 524288 bytes"),
    ],
)
def test_what_is_wrong_is_named(line: str, words: str) -> None:
    with pytest.raises(BadChange, match=words):
        of_line(line)
