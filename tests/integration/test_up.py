"""`tidings up` as a person meets it: one command in an empty directory, kill -9, and Ctrl-C."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.integration.command_line import TIDINGS, bare, tidings, until
from tidings.gateway_client import GatewayClient, Refused, Unreachable

ROLES = {"broker", "gateway", "worker", "sender", "wrapper"}


class Running:
    """One `tidings up` that has printed its link."""

    def __init__(self, cwd: Path, *arguments: str) -> None:
        self.cwd = cwd
        self.process = subprocess.Popen(
            [*TIDINGS, "up", "--port", "0", *arguments],
            cwd=cwd,
            env=bare(),
            stdout=subprocess.PIPE,
            stderr=(cwd / "err.txt").open("a"),
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout
        link = self.process.stdout.readline()  # bounded by the test's own time limit
        assert "/#token=" in link, (cwd / "err.txt").read_text()
        self.url, _, self.token = link.strip().partition("/#token=")
        self.how_to_stop = self.process.stdout.readline()
        self.client = GatewayClient(self.url, self.token)

    def note(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.cwd / "data" / "up.json").read_text())
        return found

    def family(self) -> list[psutil.Process]:
        own = psutil.Process(self.process.pid)
        return [own, *own.children(recursive=True)]

    def titles(self) -> list[str]:
        return [notice["title"] for notice in self.client.call("GET", "/v1/notices")["items"]]

    def mails(self) -> list[str]:
        return [mail["subject"] for mail in self.client.call("GET", "/demo/mail")]

    def ready(self) -> bool:
        try:
            return bool(self.client.call("GET", "/readyz")["ready"])
        except (Refused, Unreachable):
            return False

    def has(self, title: str) -> bool:
        try:
            return title in self.titles()
        except (Refused, Unreachable):
            return False


def metrics(port: int) -> str:
    """What a role counts; nothing while it does not serve yet."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/metrics").text
    except httpx.ConnectError:
        return ""


@contextmanager
def up(cwd: Path, *arguments: str) -> Iterator[Running]:
    running = Running(cwd, *arguments)
    family = running.family()
    try:
        yield running
        family = running.family() if running.process.poll() is None else family
    finally:
        for process in family:
            if process.is_running():
                process.kill()
        running.process.wait()


@pytest.mark.timeout(240)
def test_one_command_then_kill_9_then_again_then_ctrl_c(tmp_path: Path) -> None:
    with up(tmp_path) as first:
        assert first.ready()
        assert "Ctrl-C" in first.how_to_stop
        note = first.note()
        assert set(note["pids"]) == ROLES
        for name in ("up.json", "secret"):
            assert stat.S_IMODE((tmp_path / "data" / name).stat().st_mode) == 0o600
        welcome = until(
            lambda: [t for t in first.titles() if t.startswith("Tidings watches")], 30, "the notice of this host"
        )
        for role, port in note["metrics"].items():
            shown = until(partial(metrics, port), 30, f"the metrics of the {role}")  # some start after the page
            assert "tidings_" + ("alert" if role == "wrapper" else role) in shown
        hosts = until(lambda: first.client.call("GET", "/v1/entities/host")["items"], 30, "the host's entity")
        assert set(hosts[0]["entity"]) >= {"cpu", "memory", "disks", "load"}
        # other commands find it by its directory
        told = tidings(tmp_path, "notify", "--to", "you", "--title", "from the shell", "--forward-after", "0")
        assert told.returncode == 0, told.stderr
        until(lambda: first.has("from the shell"), 30, "the notice from the shell")
        until(lambda: "from the shell" in first.mails(), 60, "its mail")
        signed = tidings(tmp_path, "token", "--service", "shop")
        revoked = tidings(tmp_path, "token", "revoke", signed.stderr.split()[1].rstrip(":"))
        assert revoked.returncode == 0, revoked.stderr
        refused = tidings(tmp_path, "notify", "--to", "you", "--title", "x", given={"token": signed.stdout.strip()})
        assert refused.stderr == "tidings: The token was revoked.\n"
        assert tidings(tmp_path, "emit", "host", "other", stdin='{"name":"other","cpu":1}').returncode == 0
        doctor = tidings(tmp_path, "doctor")
        assert doctor.returncode == 0, doctor.stdout + doctor.stderr
        replayed = tidings(tmp_path, "replay", "--topic", "notices", "--user", "you").stdout
        assert "NoticeRaised" in replayed
        # one at a time
        second = tidings(tmp_path, "up")
        assert second.returncode == 1
        assert "already runs on" in second.stderr
        family = first.family()
        first.process.kill()
        _, alive = psutil.wait_procs(family, timeout=20)
        assert alive == []

    with up(tmp_path) as again:
        assert again.ready()
        until(lambda: len(again.client.call("GET", "/v1/entities/host")["items"]) == 2, 30, "both hosts")
        assert [t for t in again.titles() if t.startswith("Tidings watches")] == welcome
        assert "from the shell" in again.titles()
        family = again.family()
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(timeout=20) == 0
        _, alive = psutil.wait_procs(family, timeout=1)
        assert alive == []
        assert not (tmp_path / "data" / "up.json").exists()
        assert "Traceback" not in (tmp_path / "err.txt").read_text()
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["data", "err.txt"]  # nothing is left elsewhere


@pytest.mark.timeout(240)
def test_whatever_dies_is_started_again_and_nothing_is_lost(tmp_path: Path) -> None:
    with up(tmp_path, "--no-demo") as running:
        assert "wrapper" not in running.note()["pids"]
        for role in ("gateway", "worker", "sender", "broker"):
            before = running.note()["pids"][role]
            os.kill(before, signal.SIGKILL)

            def anew(role: str = role, before: int = before) -> bool:
                return running.note()["pids"].get(role) not in (before, None)

            until(anew, 40, f"another {role}")
            until(running.ready, 40, f"readiness after the {role}'s death")
            title = f"after the {role}'s death"
            told = tidings(tmp_path, "notify", "--to", "you", "--title", title, "--idempotency-key", role)
            assert told.returncode == 0, told.stderr
            until(lambda title=title: running.has(title), 40, title)  # type: ignore[misc]
        errors = (tmp_path / "err.txt").read_text()
        assert "the gateway was ended by signal 9, starting it again" in errors
        assert "the embedded broker has ended (it was killed)" in errors
        assert "Traceback" not in errors


def refused(cwd: Path, *arguments: str, given: dict[str, str] | None = None) -> str:
    told = tidings(cwd, "up", *arguments, given=given)
    assert told.returncode == 1, told.stderr
    assert told.stdout == ""
    assert len(told.stderr.splitlines()) == 1, told.stderr
    return told.stderr


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"port {port} is taken by another program" in refused(tmp_path, "--port", str(port))


def test_a_foreign_directory_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    assert "is not a data directory of Tidings" in refused(tmp_path, "--data", ".")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["thesis.tex"]


def test_a_missing_java_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert "Java 17 or newer is needed" in refused(tmp_path, "--port", "0")


def test_a_directory_that_can_not_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    assert "can't be used (File exists)" in refused(tmp_path)


def test_a_wrong_setting_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    told = tidings(tmp_path, "up", given={"prot": "80"})
    assert told.returncode == 2
    assert "TIDINGS_PROT, which is no setting: did you mean TIDINGS_PORT?" in told.stderr
    assert not (tmp_path / "data").exists()


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    # A small disk of its own, mounted where only this process sees it, and gone with it.
    if shutil.which("unshare") is None:
        pytest.fail("this test needs unshare (util-linux)")
    mounted = 'mount -t tmpfs -o size=24m tidings "$1" && cd "$1" && shift && exec "$@"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    told = subprocess.run(
        [*namespace, str(tmp_path), *TIDINGS, "up", "--port", "0"],
        env=bare(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert told.returncode == 1, told.stderr
    assert len(told.stderr.splitlines()) == 1, told.stderr
    assert "is full (" in told.stderr


def test_a_kafka_that_is_away_is_one_clear_line(tmp_path: Path) -> None:
    assert "no Kafka answers there" in refused(tmp_path, "--port", "0", given={"kafka": "127.0.0.1:1"})


def test_another_number_of_partitions_is_one_clear_line_and_everything_stops_in_time(
    kafka: str, tmp_path: Path
) -> None:
    given = {"kafka": kafka, "entity_types": "host", "topic_prefix": f"{tmp_path.name[:60]}-"}
    made = tidings(tmp_path, "topics", "apply", given=given | {"partitions": "2"})
    assert made.returncode == 0, made.stderr
    told = refused(tmp_path, "--port", "0", "--no-demo", given=given | {"partitions": "3"})
    assert "set TIDINGS_PARTITIONS back to 2" in told
