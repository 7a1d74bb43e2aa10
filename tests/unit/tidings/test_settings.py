"""Settings: what is given is checked, what is unknown is refused with the nearest name, what is secret is not shown."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from api.settings import Limits
from tidings.roles.gateway import room_settings as gateway_room
from tidings.roles.sender import room_settings
from tidings.settings import (
    ROLES,
    GatewaySettings,
    KafkaSettings,
    SenderSettings,
    UpSettings,
    WorkerSettings,
    known_names,
    read,
)
from tidings.settings_source import SettingsError


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without tidings.toml, and no variables of the machine's."""
    monkeypatch.chdir(tmp_path)
    for name in known_names():
        monkeypatch.delenv(f"TIDINGS_{name.upper()}", raising=False)
    monkeypatch.setenv("TIDINGS_KAFKA", "one:9092,two:9092")
    monkeypatch.setenv("TIDINGS_ENTITY_TYPES", "vm, task")
    monkeypatch.setenv("TIDINGS_DATABASE", "postgresql+psycopg://tidings:hush@db/tidings")
    return tmp_path


def test_lists_are_comma_separated() -> None:
    assert read(KafkaSettings).entity_types == ("vm", "task")


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("300", timedelta(seconds=300)),
        ("5m", timedelta(minutes=5)),
        ("1h30m", timedelta(minutes=90)),
        ("0", timedelta()),
    ],
)
def test_durations_are_seconds_or_texts(monkeypatch: pytest.MonkeyPatch, given: str, meant: timedelta) -> None:
    monkeypatch.setenv("TIDINGS_SECRET", "s" * 32)
    monkeypatch.setenv("TIDINGS_FORWARD_AFTER", given)
    assert read(GatewaySettings).forward_after == meant


@pytest.mark.parametrize("given", ["soon", "-5m", "5 m", "1e3"])
def test_a_wrong_duration_is_named(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TIDINGS_SECRET", "s" * 32)
    monkeypatch.setenv("TIDINGS_FORWARD_AFTER", given)
    with pytest.raises(SettingsError, match=r"^TIDINGS_FORWARD_AFTER: a duration is"):
        read(GatewaySettings)


def test_a_lease_is_long_enough_for_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_SENDER_LEASE", "5")
    assert room_settings(read(SenderSettings)).lease_s == 5
    monkeypatch.setenv("TIDINGS_SENDER_LEASE", "4s")
    with pytest.raises(SettingsError, match=r"^TIDINGS_SENDER_LEASE: a lease has at least 5 s"):
        read(SenderSettings)


def test_an_unknown_variable_is_refused_with_the_nearest_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_ENTITY_TYPE", "vm")
    with pytest.raises(SettingsError, match=r"TIDINGS_ENTITY_TYPE, which is no .*did you mean TIDINGS_ENTITY_TYPES?"):
        read(KafkaSettings)


def test_an_unknown_name_in_the_file_is_refused_with_the_nearest_name(alone: Path) -> None:
    (alone / "tidings.toml").write_text('forward_afer = "5m"\n')
    with pytest.raises(SettingsError, match=r"^tidings\.toml has forward_afer, .*did you mean forward_after\?$"):
        read(WorkerSettings)


def test_one_file_serves_every_role_and_the_environment_wins(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDINGS_ENTITY_TYPES")
    (alone / "tidings.toml").write_text(
        'kafka = "file:9092"\nentity_types = ["vm", "disk"]\nsmtp = "smtp://mail"\nforward_after = 60\npartitions = 8\n'
        f'secret = "{"s" * 32}"\n'
    )
    settings = read(GatewaySettings)
    assert (settings.kafka, settings.entity_types) == ("one:9092,two:9092", ("vm", "disk"))
    assert (settings.forward_after, settings.partitions) == (timedelta(minutes=1), 8)
    assert settings.cluster.bootstrap == "one:9092,two:9092"
    assert set(settings.catalogue.topics()) >= {"entities.vm", "entities.disk", "notices"}


def test_a_broken_file_is_named(alone: Path) -> None:
    (alone / "tidings.toml").write_text("kafka =")
    with pytest.raises(SettingsError, match=r"^tidings\.toml can't be read: "):
        read(KafkaSettings)


def test_what_is_missing_is_named_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TIDINGS_DATABASE")
    with pytest.raises(SettingsError, match=r"^TIDINGS_DATABASE is not set: give an SQLAlchemy URL"):
        read(WorkerSettings)


def test_a_gateway_needs_one_way_to_check_tokens(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (alone / "keys.json").touch()
    with pytest.raises(SettingsError, match=r"^set either TIDINGS_SECRET or TIDINGS_JWKS"):
        read(GatewaySettings)
    monkeypatch.setenv("TIDINGS_SECRET", "s" * 32)
    monkeypatch.setenv("TIDINGS_JWKS", "keys.json")
    with pytest.raises(SettingsError, match=r"^set either TIDINGS_SECRET or TIDINGS_JWKS"):
        read(GatewaySettings)
    for wrong in ("http://idp.test/keys", "ftp://127.0.0.1/keys", "https://", "other.json"):
        monkeypatch.setenv("TIDINGS_JWKS", wrong)
        with pytest.raises(SettingsError, match=r"^TIDINGS_JWKS: "):
            read(GatewaySettings)


def test_a_limit_is_named_and_a_wrong_one_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_SECRET", "s" * 32)
    monkeypatch.setenv("TIDINGS_LIMIT_SUBSCRIPTIONS", "64")
    monkeypatch.setenv("TIDINGS_LIMIT_COMMANDS_PER_SECOND", "0.5")
    given = gateway_room(read(GatewaySettings)).limits
    assert given == replace(Limits(), subscriptions=64, commands_per_second=0.5)
    assert isinstance(given.subscriptions, int)
    monkeypatch.setenv("TIDINGS_LIMIT_SUBSCRIPTIONS", "-1")
    with pytest.raises(SettingsError, match=r"^TIDINGS_LIMIT_SUBSCRIPTIONS: "):
        read(GatewaySettings)
    monkeypatch.delenv("TIDINGS_LIMIT_SUBSCRIPTIONS")
    monkeypatch.setenv("TIDINGS_LIMIT_SUBSCRIPTION", "64")
    with pytest.raises(SettingsError, match=r"did you mean TIDINGS_LIMIT_SUBSCRIPTIONS\?"):
        read(GatewaySettings)


def test_channels_are_collected_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_CHANNEL_TELEGRAM", "tgram://hush/{address}")
    settings = read(SenderSettings)
    assert settings.channel["telegram"].get_secret_value() == "tgram://hush/{address}"


def test_backends_are_a_table_or_json(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_SECRET", "s" * 32)
    (alone / "tidings.toml").write_text(
        '[backends.panel]\nurl = "http://panel/api"\npaths = ["/vm/{id}"]\ntimeout = "500ms"\ntoken = "hush"\n'
    )
    found = read(GatewaySettings).backends["panel"]
    assert (found.timeout, found.concurrency, found.auth) == (0.5, 8, "service")
    assert "hush" not in repr(read(GatewaySettings))
    monkeypatch.setenv("TIDINGS_BACKENDS", '{"crm":{"url":"https://crm","paths":["/{type}/{id}"],"auth":"subscriber"}}')
    assert list(read(GatewaySettings).backends) == ["crm"]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("{", r"^TIDINGS_BACKENDS: give JSON, or a table in tidings.toml"),
        ('{"a":{"paths":["/x"]}}', r"^TIDINGS_BACKENDS: a: url: Field required$"),
        ('{"a b":{"url":"http://x","paths":["/x"]}}', r"^TIDINGS_BACKENDS: a b: String should match"),
        ('{"a":{"url":"http://x","paths":["/x"],"timout":1}}', r": a: timout: .*did you mean timeout\?$"),
        ('{"a":{"url":"http://x","paths":["/../x"]}}', r"^TIDINGS_BACKENDS: a: paths: 0: '/../x' is no path"),
        (
            '{"a":{"url":"http://x","paths":["/x"],"auth":"subscriber","token":"hush"}}',
            r"^TIDINGS_BACKENDS: a: `token`",
        ),
    ],
)
def test_a_wrong_backend_is_named(monkeypatch: pytest.MonkeyPatch, given: str, complaint: str) -> None:
    monkeypatch.setenv("TIDINGS_SECRET", "s" * 32)
    monkeypatch.setenv("TIDINGS_BACKENDS", given)
    with pytest.raises(SettingsError, match=complaint) as refused:
        read(GatewaySettings)
    assert "hush" not in str(refused.value)


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECRET", "KAFKA_SASL_PASSWORD", "SMTP", "CHANNEL_SLACK"):
        monkeypatch.setenv(f"TIDINGS_{name}", "hush")
    for role in ROLES:
        assert "hush" not in repr(read(role))
    monkeypatch.setenv("TIDINGS_PORT", "hush")
    with pytest.raises(SettingsError) as refused:
        read(GatewaySettings)
    assert "hush" not in str(refused.value)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDINGS_SMTP", "")
    monkeypatch.setenv("TIDINGS_PARTITIONS", "")
    assert (read(SenderSettings).smtp, read(SenderSettings).partitions) == (None, 4)


def test_up_needs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAFKA", "ENTITY_TYPES", "DATABASE"):
        monkeypatch.delenv(f"TIDINGS_{name}")
    settings = read(UpSettings, port=9000)
    assert (settings.entity_types, settings.host, settings.port, settings.kafka) == (("host",), "127.0.0.1", 9000, None)


@pytest.mark.parametrize("given", ["a b", "ü", "vm/1", "x" * 101])
def test_an_entity_type_can_be_part_of_a_topics_name(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("TIDINGS_ENTITY_TYPES", given)
    with pytest.raises(SettingsError, match=r"^TIDINGS_ENTITY_TYPES: .* can't be an entity type"):
        read(KafkaSettings)
