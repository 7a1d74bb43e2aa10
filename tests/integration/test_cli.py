"""The command line against a real Kafka: topics, emit, replay, and what their mistakes look like."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from click.testing import CliRunner

from tests.integration.command_line import tidings
from tidings.cli.main import cli
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.provision import apply

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def settings(kafka: str, namespace: str) -> dict[str, str]:
    return {"kafka": kafka, "entity_types": "vm", "topic_prefix": namespace, "partitions": "2"}


@pytest.fixture
def run(settings: dict[str, str], tmp_path: Path) -> Run:
    def call(*arguments: str, stdin: str | bytes = b"", **more: str) -> subprocess.CompletedProcess[str]:
        return tidings(tmp_path, *arguments, given=settings | more, stdin=stdin)

    return call


@pytest.fixture
def applied(run: Run, kafka: str, namespace: str) -> Run:
    apply(Cluster(kafka), Catalogue(("vm",), prefix=namespace, partitions=2))
    return run


def test_topics_are_made_once_and_a_repeat_finds_them_as_they_are(run: Run) -> None:
    first = run("topics", "apply")
    assert first.returncode == 0, first.stderr
    assert "made     entities.vm (2 partitions, compacted)" in first.stdout
    second = run("topics", "apply")
    assert second.returncode == 0, second.stderr
    assert {line.split()[0:2][0] for line in second.stdout.splitlines()} == {"as"}
    listed = run("topics", "list")
    assert listed.returncode == 0
    assert all(line.endswith("as declared") for line in listed.stdout.splitlines())


def test_missing_topics_are_listed_as_missing_and_nothing_is_made(run: Run) -> None:
    for _ in range(2):
        listed = run("topics", "list")
        assert listed.returncode == 0, listed.stderr
        assert all(line.endswith("missing") for line in listed.stdout.splitlines())


def test_drift_is_reported_and_set_right_and_nothing_else_is_touched(applied: Run, kafka: str, namespace: str) -> None:
    async def change() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
        await admin.start()
        try:
            wanted = {"cleanup.policy": "delete", "retention.ms": "1000", "segment.ms": "600000"}
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, f"{namespace}notices", configs=wanted)])
        finally:
            await admin.close()

    asyncio.run(change())
    shown = applied("topics", "show", "notices")
    assert "retention.ms 1000 → -1" in shown.stdout, shown
    done = applied("topics", "apply")
    assert "changed  notices: " in done.stdout
    assert "retention.ms 1000 → -1" in done.stdout
    assert "on the cluster: as declared" in applied("topics", "show", "notices").stdout


def test_another_number_of_partitions_is_refused(applied: Run) -> None:
    done = applied("topics", "apply", partitions="3")
    assert done.returncode == 1
    assert "the number is fixed for the life of a log; set TIDINGS_PARTITIONS back to 2" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_topic_is_named(applied: Run) -> None:
    done = applied("topics", "show", "nothing")
    assert done.returncode == 2
    assert done.stderr.startswith("tidings: the catalogue has no topic 'nothing': it has schemas, ")


def test_a_change_goes_to_the_log_and_is_read_back(applied: Run) -> None:
    done = applied("emit", "vm", "17", "--version", "9", stdin='{"name": "web-1", "price": 1.10}')
    assert done.returncode == 0, done.stderr
    place = done.stdout.strip()
    assert place.startswith("entities.vm[")
    assert applied("emit", "vm", "17", "--op", "deleted").returncode == 0
    read = applied("replay", "--topic", "entities.vm", "--json")
    assert read.returncode == 0, read.stderr
    changes = [r for r in map(json.loads, read.stdout.splitlines()) if r["event"] == "EntityChanged"]
    assert [(c["key"], c["value"]["op"], c["value"]["version"]) for c in changes] == [
        ("17", "updated", 9),
        ("17", "deleted", None),
    ]
    assert f"{changes[0]['topic']}[{changes[0]['partition']}]@{changes[0]['offset']}" == place
    assert changes[0]["value"]["body"] == {"name": "web-1", "price": 1.1}
    as_text = applied("replay", "--topic", "entities.vm").stdout
    assert 'EntityChanged entity_type=vm entity_id=17 op=updated version=9 body={"name"' in as_text


def test_many_changes_at_once_and_the_bad_lines_are_named(applied: Run) -> None:
    good = [json.dumps({"id": f"vm-{i}", "op": "created", "body": {"cpu": i}}) for i in range(1200)]
    lines = [*good[:3], "{oops", '{"id": "x", "body": [1]}', "", *good[3:]]
    done = applied("emit", "vm", "--ndjson", stdin="\n".join(lines).encode() + b"\n\xff\xfe\n")
    assert done.returncode == 1
    assert done.stdout == "1200 changes emitted, 3 lines refused\n"
    assert "tidings: line 4: a change is no JSON" in done.stderr
    assert "tidings: line 5: the body is a JSON object" in done.stderr
    assert "Traceback" not in done.stderr
    read = applied("replay", "--topic", "entities.vm", "--json")
    found = [json.loads(line) for line in read.stdout.splitlines()]
    assert {r["key"] for r in found if r["event"] == "EntityChanged"} == {f"vm-{i}" for i in range(1200)}


def test_wrong_bodies_and_types_are_refused_before_anything_is_sent(applied: Run) -> None:
    for arguments, stdin, words in (
        (("emit", "vm", "17"), "not json", "the body is no JSON"),
        (("emit", "vm", "17"), b"\xff", "stdin is not UTF-8 at byte 0"),
        (("emit", "cm", "17"), "{}", "'cm' is no entity type here: TIDINGS_ENTITY_TYPES has vm"),
        (("emit", "vm"), "{}", "Give either an ID, or --ndjson."),
    ):
        done = applied(*arguments, stdin=stdin)
        assert done.returncode == 2, arguments
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    assert "EntityChanged" not in applied("replay", "--topic", "entities.vm").stdout


def test_replay_takes_times_and_shows_what_can_not_be_decoded(applied: Run, kafka: str, namespace: str) -> None:
    async def send_junk() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=kafka)
        await producer.start()
        try:
            await producer.send_and_wait(f"{namespace}notices", b"junk", b"u1")
        finally:
            await producer.stop()

    asyncio.run(send_junk())
    shown = applied("replay", "--topic", "notices", "--since", "5m")
    assert "undecodable (not an Avro single-object encoding), 4 bytes" in shown.stdout
    assert applied("replay", "--since", "2200-01-01").stdout == ""
    assert applied("replay", "--until", "1h").stdout == ""
    wrong = applied("replay", "--since", "yesterday")
    assert wrong.returncode == 2
    assert "'yesterday' is no time" in wrong.stderr


def test_history_of_a_cluster_without_topics_says_what_to_do(run: Run) -> None:
    for arguments in (("replay",), ("why", "some-notice"), ("as-of", "1h", "--user", "ann")):
        done = run(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith("tidings: topics are missing (schemas, ")
        assert done.stderr.endswith("run `tidings topics apply`\n")


def test_settings_that_are_wrong_are_told_in_a_line(run: Run, tmp_path: Path) -> None:
    for more, words in (
        ({"entity_type": "vm"}, "TIDINGS_ENTITY_TYPE, which is no setting: did you mean TIDINGS_ENTITY_TYPES?"),
        ({"partitions": "many"}, "TIDINGS_PARTITIONS: "),
    ):
        done = run("topics", "list", **more)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr
    nothing = tidings(tmp_path, "replay")
    assert nothing.returncode == 2
    assert "TIDINGS_KAFKA is not set" in nothing.stderr


def test_a_kafka_that_is_away_is_told_in_a_line(tmp_path: Path) -> None:
    for arguments in (("topics", "apply"), ("replay",)):
        done = tidings(tmp_path, *arguments, given={"kafka": "127.0.0.1:1", "entity_types": "vm"})
        assert done.returncode == 1
        assert "no Kafka answers there" in done.stderr
        assert "Traceback" not in done.stderr


def test_a_token_needs_a_secret_and_a_name(tmp_path: Path) -> None:
    assert "there is no secret to sign with" in tidings(tmp_path, "token", "--user", "u1").stderr
    assert tidings(tmp_path, "token").returncode == 2
    done = tidings(tmp_path, "token", "--user", "u1", "--ttl", "5m", given={"secret": "s" * 40})
    assert done.stdout.count(".") == 2
    assert tidings(tmp_path, "token", "--user", "u1", "--ttl", "soon", given={"secret": "s" * 40}).returncode == 2


def test_every_command_explains_itself() -> None:
    for command in (
        "up",
        "worker",
        "gateway",
        "sender",
        "wrapper",
        "topics",
        "emit",
        "notify",
        "token",
        "replay",
        "why",
        "as-of",
        "demo",
        "doctor",
    ):
        done = CliRunner().invoke(cli, [command, "--help"])
        assert done.exit_code == 0, command
        assert done.stdout.startswith("Usage: "), command


def test_doctor_names_what_is_wrong_and_what_to_do(run: Run, applied: Run) -> None:
    panel, own = {"url": "http://127.0.0.1:1", "paths": ["/{id}"]}, {"url": "http://0xa9fea9fe", "paths": ["/x"]}
    done = applied("doctor", backends=json.dumps({"panel": panel, "own": own}))
    assert "well   topics" in done.stdout
    assert "no token can be signed here" in done.stdout
    assert "backend panel: ConnectionRefusedError" in done.stdout
    assert "leads to 169.254.169.254, a link-local" in done.stdout
    assert done.returncode == 1
    away = run("doctor", kafka="127.0.0.1:1")
    assert "nothing answers at 127.0.0.1:1" in away.stdout
    assert "Traceback" not in away.stderr
