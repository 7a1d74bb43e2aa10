"""The compose file without an engine: each service's command and environment, run as a plain process, becomes ready.

Only host names, the port and the topics' prefix are replaced; what a container adds (its user, its network, its
volumes) is not tested here.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.command_line import ROOT, TIDINGS, bare, tidings, until
from tidings.gateway_client import GatewayClient, Refused, Unreachable
from tidings.up_roles import free_ports

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())
READY = {
    "worker": "the start is over",
    "sender": "the queue is complete",
    "wrapper": "started alert=disk-nearly-full",
}
GIVEN_BY_USER = {"TIDINGS_SECRET": "s" * 48}
KEPT = "/var/lib/tidings"  # where the image has a directory of its user's


@pytest.fixture
def replaced(kafka: str, postgres: str, namespace: str, tmp_path: Path) -> dict[str, str]:
    """What stands for the network and the volumes of the containers."""
    kept = str(tmp_path / "kept")
    return {"kafka": kafka, "postgres": postgres, "prefix": namespace, "port": str(free_ports(1)[0]), "kept": kept}


def environment(service: dict[str, Any], replaced: dict[str, str]) -> dict[str, str]:
    found = {}
    for name, value in service["environment"].items():
        text = re.sub(
            r"\$\{(\w+):([-?])([^}]*)\}", lambda m: GIVEN_BY_USER.get(m[1], m[3] if m[2] == "-" else ""), value
        )
        assert "$" not in text, name
        text = text.replace("kafka:9092", replaced["kafka"]).replace(KEPT, replaced["kept"])
        found[name] = re.sub(r"^postgresql\+psycopg://.*@postgres:5432/tidings$", replaced["postgres"], text)
    if "TIDINGS_PORT" in found:
        found |= {"TIDINGS_PORT": replaced["port"], "TIDINGS_HOST": "127.0.0.1"}
    return found | {"TIDINGS_TOPIC_PREFIX": replaced["prefix"]}


@pytest.fixture
def services(replaced: dict[str, str], tmp_path: Path) -> Iterator[dict[str, tuple[subprocess.Popen[bytes], Path]]]:
    """Every service of ours that stays, started after `topics apply`, as compose does."""
    own = {name: s for name, s in COMPOSE["services"].items() if s["image"] == "tidings"}
    applying = own.pop("topics")
    given = {n.removeprefix("TIDINGS_").lower(): v for n, v in environment(applying, replaced).items()}
    done = tidings(ROOT, *applying["command"], given=given)
    assert done.returncode == 0, done.stderr
    running = {}
    try:
        for name, service in own.items():
            log = tmp_path / f"{name}.log"
            process = subprocess.Popen(
                [*TIDINGS, *service["command"]],
                cwd=ROOT,  # the image's working directory is a copy of it
                env=bare() | environment(service, replaced),
                stdout=log.open("wb"),
                stderr=subprocess.STDOUT,
            )
            running[name] = process, log
        yield running
    finally:
        for process, _ in running.values():
            process.kill()
            process.wait()


@pytest.mark.timeout(180)
def test_every_service_becomes_ready_and_stops_when_asked(
    services: dict[str, tuple[subprocess.Popen[bytes], Path]], replaced: dict[str, str]
) -> None:
    assert set(services) == {"worker", "gateway", "sender", "wrapper"}
    for name, words in READY.items():
        process, log = services[name]
        until(lambda log=log, words=words: words in log.read_text(), 60, f"{name}: {words!r}")  # type: ignore[misc]
        assert process.poll() is None

    def ready() -> bool:
        try:
            with GatewayClient(f"http://127.0.0.1:{replaced['port']}") as client:
                return bool(client.call("GET", "/readyz")["ready"])
        except (Refused, Unreachable):
            return False

    until(ready, 60, "the gateway's readiness")
    assert list(Path(replaced["kept"]).glob("*.world")), "the wrapper keeps its world"
    for process, _ in services.values():
        process.terminate()
    for name, (process, log) in services.items():
        assert process.wait(timeout=20) == 0, (name, log.read_text()[-2000:])


def test_the_image_has_every_room_and_what_it_needs() -> None:
    text = (ROOT / "docker" / "Dockerfile").read_text()
    copied = {line.split()[1] for line in text.splitlines() if line.startswith("COPY ")}
    rooms = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "bench", "examples"}
    assert rooms | {"schemas", "examples", "requirements.lock"} <= copied
    allowed = (ROOT / "docker" / "Dockerfile.dockerignore").read_text().splitlines()
    assert {f"!{name}" for name in copied} <= set(allowed)
    assert "USER tidings" in text
    assert f"--owner tidings {KEPT}\n" in text  # a new volume takes it over


def test_what_a_container_keeps_is_on_a_volume() -> None:
    for name, service in COMPOSE["services"].items():
        mounted = dict(volume.split(":", 1) for volume in service.get("volumes", ()))
        assert set(mounted) <= set(COMPOSE["volumes"]), name
        kept = {path for path in service["environment"].values() if path.startswith("/var/")}
        assert kept <= set(mounted.values()), name
    assert COMPOSE["services"]["wrapper"]["environment"]["TIDINGS_STATE_DIR"] == KEPT


def test_every_service_that_is_waited_for_is_there_and_every_setting_is_known() -> None:
    from tidings.settings import known_names  # noqa: PLC0415 - only here

    names = {f"TIDINGS_{name.upper()}" for name in known_names()}
    for name, service in COMPOSE["services"].items():
        assert set(service.get("depends_on", ())) <= set(COMPOSE["services"]), name
        ours = {n for n in service["environment"] if n.startswith("TIDINGS_")}
        assert ours <= names, name
