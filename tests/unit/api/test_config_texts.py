"""What is checked in configs, recipients and preferences, and that a PATCH keeps the bytes that it does not name."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from api.http.merge import merged
from api.notices.addresses import is_address
from api.notices.lanes import Forward, steps_of
from api.notices.links import is_link
from api.preferences import checked
from api.problems import Problem, first_fault
from api.routes.alert_configs import AlertConfig
from api.routes.recipients import Recipient
from api.things import with_id
from topics.durations import milliseconds
from topics.json_text import joined

METRIC = '{"high":1.10,"big":1e400,"a":1,"a":2,"text":"\\u00e4 \\ud800"}'


def test_a_patch_keeps_what_it_does_not_name() -> None:
    text = '{"id":"c","name":"x","metric":<metric>,"owner":{"a":1,"b":1.0}}'.replace("<metric>", METRIC)
    found = merged(text, '{"name":"y","owner":{"a":null,"c":[1, 2.50]}}')
    assert found == '{"id":"c","name":"y","metric":<metric>,"owner":{"b":1.0,"c":[1,2.50]}}'.replace("<metric>", METRIC)
    assert merged(text, '{"metric":{"high":2.20}}') == text.replace("1.10", "2.20").replace('"a":1,"a":2', '"a":2')


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x"]),
    lambda v: st.lists(v, max_size=2) | st.dictionaries(st.sampled_from("abc"), v, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, word for word."""
    if not isinstance(patch, dict):
        return patch
    target = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            target.pop(name, None)
        else:
            target[name] = merge_patch(target.get(name), value)
    return target


@given(objects, objects)
def test_a_patch_is_the_rfcs(target: dict[str, Any], patch: dict[str, Any]) -> None:
    assert json.loads(merged(json.dumps(target), json.dumps(patch))) == merge_patch(target, patch)


def test_the_id_comes_first_and_what_answers_add_is_not_taken_back() -> None:
    text = '{"name": "x", "id": "other", "etag": "v1", "version": 3, "position": "p", "reports": [], "metric": '
    text += METRIC + "}"
    assert joined(with_id("c1", text)) == '{"id":"c1","name":"x","metric":<metric>}'.replace("<metric>", METRIC)


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"channel": {}}, "name"),
        ({"name": "", "channel": {}}, "name"),
        ({"name": "x" * 101, "channel": {}}, "name"),
        ({"name": " x", "channel": {}}, "name"),
        ({"name": 7, "channel": {}}, "name"),
        ({"name": "x"}, "channel"),
        ({"name": "x", "channel": []}, "channel"),
        ({"name": "x", "channel": {"email": "a"}}, "channel.email"),
        ({"name": "x", "channel": {"email": [""]}}, "channel.email.0"),
        ({"name": "x", "channel": {"email": ["u"] * 1_001}}, "channel"),
        ({"name": "x", "channel": {}, "enabled": "yes"}, "enabled"),
        (
            {"name": "x", "channel": {}, "forward": {"steps": [{"channel": "email", "after": "soon"}]}},
            "forward.steps.0.after",
        ),
        ({"name": "x", "channel": {}, "forward": {"steps": [{"channel": "email"}]}}, "forward.steps.0.after"),
        ({"name": "x", "channel": {}, "forward": []}, "forward"),
        ({"name": "x", "channel": {}, "forward": {"digest": "ten"}}, "forward.digest"),
        ({"name": "x", "channel": {}, "forward": {"throttle": 5}}, "forward.throttle"),
        ({"name": "x", "channel": {}, "forward": {"throttle": {"max": 5}}}, "forward.throttle.per"),
        ({"name": "x", "channel": {}, "forward": {"throttle": {"max": 0, "per": "1h"}}}, "forward.throttle.max"),
        ({"name": "x", "channel": {}, "forward": {"throttle": {"max": True, "per": "1h"}}}, "forward.throttle.max"),
        ({"name": "x", "channel": {}, "forward": {"throttle": {"max": 5, "per": 0}}}, "forward.throttle.per"),
        ({"name": "x", "channel": {}, "forward": {"throttle": {"max": 5, "per": 1, "a": 1}}}, "forward.throttle.a"),
        ({"name": "x", "channel": {}, "forward": {"repeat": "59s"}}, "forward.repeat"),
        ({"name": "x", "channel": {}, "forward": {"override": "critical"}}, "forward.override"),
        ({"name": "x", "channel": {}, "forward": {"override": ["loud"]}}, "forward.override.0"),
        ({"name": "x", "channel": {}, "forward": {"tell_resolved": "yes"}}, "forward.tell_resolved"),
    ],
)
def test_a_wrong_config_names_the_field(body: dict[str, Any], place: str) -> None:
    with pytest.raises(ValidationError) as told:
        AlertConfig.model_validate(body)
    assert first_fault(told.value).startswith(f"{place}:")


def test_further_fields_are_welcome() -> None:
    assert AlertConfig.model_validate({"name": "x", "channel": {"inbox": ["u"]}, "owner": {"a": 1}}).enabled is True


def test_a_whole_forward_is_understood_and_what_is_for_later_is_welcome() -> None:
    forward = Forward.model_validate(
        {
            "steps": [{"channel": "email", "after": "5m"}, {"channel": "telegram", "after": "15m"}],
            "digest": "10m",
            "throttle": {"max": 5, "per": "1h"},
            "repeat": "4h",
            "override": ["critical"],
            "tell_resolved": True,
            "later": [1],
        }
    )
    assert (forward.digest, forward.repeat, forward.override) == (600_000, 14_400_000, ["critical"])
    assert forward.throttle is not None
    assert (forward.throttle.max, forward.throttle.per) == (5, 3_600_000)
    assert Forward.model_validate({"digest": None, "repeat": "1m"}).repeat == 60_000


def test_steps_of_a_channel() -> None:
    forward = Forward.model_validate(
        {"steps": [{"channel": "email", "after": "5m"}, {"channel": "email", "after": 900}]}
    )
    assert steps_of("email", forward, 1) == [("email", 300_000), ("email#2", 900_000)]
    assert steps_of("telegram", forward, 7) == [("telegram", 7)]
    assert steps_of("email", None, 7) == [("email", 7)]


@pytest.mark.parametrize(
    ("given_text", "ms"),
    [(0, 0), (1.5, 1_500), ("90s", 90_000), ("1h30m", 5_400_000), ("250ms", 250), ("2d", 172_800_000)],
)
def test_durations(given_text: object, ms: int) -> None:
    assert milliseconds(given_text) == ms


@pytest.mark.parametrize(
    "wrong", ["", "5", "5 m", "-1s", -1, True, None, "9999999d", float("inf"), float("nan"), 1e300]
)
def test_wrong_durations(wrong: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        milliseconds(wrong)


@pytest.mark.parametrize(
    ("channel", "text", "good"),
    [
        ("email", "ann@example.test", True),
        ("email", "root@localhost", True),
        ("email", "ann", False),
        ("email", "a@b@c", False),
        ("email", "a@b\nBcc: x", False),
        ("telegram", "@chat-42", True),
        ("telegram", "-100123456", True),
        ("telegram", "chat", False),
        ("slack", "#ops", True),
        ("slack", "C0123ABCD", True),
        ("slack", "ops", False),
        ("webhook", "https://example.test/x", True),
        ("webhook", "http://example.test/x", False),
        ("webhook", "https://u:p@example.test/", False),
        ("webhook", "https://[", False),
        ("inbox", "anything", False),
        ("sms", "+49 123", True),
        ("sms", " x", False),
    ],
)
def test_addresses(channel: str, text: str, good: bool) -> None:
    assert is_address(channel, text) is good


@pytest.mark.parametrize(
    ("link", "good"),
    [
        ("/vm/7", True),
        ("https://example.test/a?b", True),
        ("//evil.test", False),
        ("/\\evil.test", False),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("https://", False),
        (" https://x", False),
        ("http://[", False),
    ],
)
def test_links(link: str, good: bool) -> None:
    assert is_link(link) is good


def test_recipients() -> None:
    Recipient.model_validate(
        {"name": "Ann", "addresses": {"email": "ann@example.test"}, "time_zone": "Europe/Berlin", "locale": "en"}
    )
    for wrong in (
        {"addresses": {"email": "ann"}},
        {"time_zone": "Mars/Olympus"},
        {"preferences": {"quiet": [{"from": "9"}]}},
    ):
        with pytest.raises(ValidationError):
            Recipient.model_validate(wrong)


CHANNELS = ("email", "telegram")


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"alerts": {"overuse": {"email": False}}, "channels": {"email": {"after": "10m", "digest": "1h"}}},
        {"alerts": {"overuse": {"email": {"enabled": True, "after": 0, "digest": 0}, "telegram": True}}},
        {"quiet": [{"days": [1, 7], "from": "22:00", "to": "07:00"}, {"from": "12:00", "to": "13:00"}]},
        {"time_zone": "America/St_Johns", "later": 1},
    ],
)
def test_preferences(good: dict[str, Any]) -> None:
    checked(good, CHANNELS)


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"channels": {"email": "no"}}, "channels.email"),
        ({"channels": {"email": {"enabled": 1}}}, "channels.email"),
        ({"channels": {"email": {"after": "soon"}}}, "channels.email"),
        ({"alerts": {"overuse": False}}, "alerts.overuse"),
        ({"alerts": {"overuse": {"email": {"digest": -1}}}}, "alerts.overuse.email"),
        ({"quiet": {"from": "22:00", "to": "07:00"}}, "quiet"),
        ({"quiet": [{"days": [8], "from": "22:00", "to": "07:00"}]}, "quiet.0.days.0"),
        ({"quiet": [{"days": [], "from": "22:00", "to": "07:00"}]}, "quiet.0.days"),
        ({"quiet": [{"from": "24:00", "to": "07:00"}]}, "quiet.0.from"),
        ({"quiet": [{"from": "22:00"}]}, "quiet.0.to"),
        ({"time_zone": "Mars/Olympus"}, "time_zone"),
        ({"channels": {"inbox": False}}, "The inbox"),
        ({"channels": {"mail": False}}, "There is no channel 'mail'. Did you mean email?"),
        ({"alerts": {"overuse": {"sms": False}}}, "There is no channel 'sms'."),
    ],
)
def test_wrong_preferences_name_the_field(wrong: dict[str, Any], place: str) -> None:
    with pytest.raises(Problem) as told:
        checked(wrong, CHANNELS)
    assert told.value.detail.startswith(place), told.value.detail
