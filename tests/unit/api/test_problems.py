"""Every refusal is a problem detail with a stable code, and says nothing internal."""

import json

import pytest

from api.problems import CODES, Problem, over, too_large


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_a_whole_problem(code: str) -> None:
    problem = Problem(code)
    answer = problem.response()
    body = json.loads(bytes(answer.body))
    assert answer.status_code == body["status"] == CODES[code][0]
    assert answer.media_type == "application/problem+json"
    assert body["code"] == code
    assert body["type"] == f"urn:tidings:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["todo"]
    assert problem.frame()["retry"] is (body["status"] in (429, 503))


def test_limits_are_named_with_their_value() -> None:
    assert too_large("text", 5, "A text").members() | {"todo": ""} == {
        "type": "urn:tidings:problem:too_large",
        "title": "This is larger than the limit",
        "status": 413,
        "code": "too_large",
        "detail": "A text may have 5 bytes.",
        "todo": "",
        "limit": "text",
        "value": 5,
    }
    assert over("users", 3, "users").members()["value"] == 3


def test_who_has_no_token_is_told_how_to_send_one() -> None:
    assert Problem("unauthorized").response().headers["www-authenticate"] == "Bearer"
