"""The embedded broker against real faults: kill -9, full disks, taken ports, strangers' directories."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from broker.embedded import BrokerError, EmbeddedBroker
from tests.integration.survivors import make_topic, read, send


def running(pid: int) -> bool:
    """Whether the process runs; one that has ended but that nobody has waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a broker that ran, and was stopped in order: to be copied."""
    made: Path = tmp_path_factory.mktemp("stopped")
    with EmbeddedBroker(made):
        pass
    return made


@pytest.fixture
def used(stopped: Path, tmp_path: Path) -> Path:
    """A directory in which a broker has run."""
    return Path(shutil.copytree(stopped, tmp_path / "used"))


async def test_data_and_address_survive_stop_and_kill_9_and_ctrl_c_is_not_for_the_broker(tmp_path: Path) -> None:
    with EmbeddedBroker(tmp_path) as broker:
        bootstrap, first = broker.bootstrap, broker.pid
        assert os.getpgid(first) != os.getpgid(0)
        await make_topic(bootstrap)
        assert await send(bootstrap, [b"1", b"2"]) == [b"1", b"2"]
        broker.kill()
        assert not broker.alive()
        assert "ended" in broker.failure()
        broker.start()
        assert broker.bootstrap == bootstrap
        assert await send(bootstrap, [b"3"]) == [b"3"]
        second = broker.pid
    assert not running(first)
    assert not running(second)
    with EmbeddedBroker(tmp_path) as broker:
        assert broker.bootstrap == bootstrap
        assert await read(bootstrap, 3) == [b"1", b"2", b"3"]


async def test_after_kill_9_of_the_parent_nothing_runs_on_and_a_new_start_finds_the_data(tmp_path: Path) -> None:
    # Started in a thread that ends at once, as asyncio.to_thread may: the broker must outlive that thread.
    script = (
        "import pathlib, sys, threading\n"
        "from broker.embedded import EmbeddedBroker\n"
        "broker = EmbeddedBroker(pathlib.Path(sys.argv[1]))\n"
        "thread = threading.Thread(target=broker.start); thread.start(); thread.join()\n"
        "print(broker.bootstrap, broker.pid, flush=True); sys.stdin.read()\n"
    )
    parent = subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with parent:
        assert parent.stdout
        bootstrap, pid = parent.stdout.readline().split()
        await make_topic(bootstrap)
        assert await send(bootstrap, [b"1"]) == [b"1"]
        assert running(int(pid))
        parent.kill()
    with EmbeddedBroker(tmp_path) as broker:
        assert not running(int(pid))
        assert broker.bootstrap == bootstrap
        assert await read(bootstrap, 1) == [b"1"]


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(BrokerError, match=rf"^port {port} is taken by another program: .*$"):
            EmbeddedBroker(tmp_path, port).start()


def test_a_remembered_port_that_is_taken_gives_way_to_another(used: Path) -> None:
    port = json.loads((used / "broker.json").read_text())["port"]
    with socket.create_server(("127.0.0.1", port)), EmbeddedBroker(used) as broker:
        assert broker.bootstrap != f"127.0.0.1:{port}"


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_a_missing_java_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    if home:
        monkeypatch.setenv("JAVA_HOME", home)
    with pytest.raises(BrokerError, match=r"^Java 17 or newer .*: apt-get install openjdk-17-jre-headless$"):
        EmbeddedBroker(tmp_path / "data").start()
    assert not (tmp_path / "data").exists()


def test_missing_jars_name_the_set_up(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"^Kafka's jars are missing in .*: run `make setup`$"):
        EmbeddedBroker(tmp_path / "data", libs=tmp_path).start()


def test_a_foreign_directory_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(BrokerError, match=r"is not this broker's data directory .*'thesis.tex'.*choose an empty"):
        EmbeddedBroker(tmp_path).start()
    assert {path.name for path in tmp_path.iterdir()} <= {"thesis.tex", "lock"}


def test_the_log_of_another_cluster_is_refused(used: Path) -> None:
    properties = used / "log" / "meta.properties"
    cluster_id = json.loads((used / "broker.json").read_text())["cluster_id"]
    properties.write_text(properties.read_text().replace(cluster_id, "AnotherClusterAltogeth"))
    with pytest.raises(BrokerError, match="its log is of cluster AnotherClusterAltogeth"):
        EmbeddedBroker(used).start()


@pytest.mark.parametrize("text", ["", "{}", '{"cluster_id": "x", "port": "many"}', "[1]"])
def test_a_broken_identity_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "broker.json").write_text(text)
    with pytest.raises(BrokerError, match=r"broker\.json is not one of ours"):
        EmbeddedBroker(tmp_path).start()


def test_a_file_in_place_of_the_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(BrokerError, match=r"data can't be used for the broker's data: File exists"):
        EmbeddedBroker(tmp_path / "data").start()


async def test_a_second_broker_on_the_directory_is_refused_and_the_first_lives_on_until_it_is_stopped_though_frozen(
    used: Path,
) -> None:
    with EmbeddedBroker(used) as first:
        with pytest.raises(BrokerError, match=rf"^another broker already runs on .* \(process {os.getpid()}\)"):
            EmbeddedBroker(used).start()
        await make_topic(first.bootstrap)
        assert await send(first.bootstrap, [b"1"]) == [b"1"]
        pid = first.pid
        os.kill(pid, signal.SIGSTOP)
        first.stop(timeout=0.2)
        assert not running(pid)


def test_a_start_that_was_killed_while_formatting_is_taken_up_again(used: Path) -> None:
    (used / "log" / "meta.properties").unlink()  # Kafka writes it last
    with EmbeddedBroker(used) as broker:
        assert broker.alive()


def test_a_full_disk_is_named_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    # A small disk of its own, mounted where only this process sees it, and gone with it.
    mounted = 'mount -t tmpfs -o size=96m tidings "$1" && exec "$2" -m tests.integration.full_disk "$1"'
    namespace = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mounted, "sh"]
    told = subprocess.run(
        [*namespace, str(tmp_path), sys.executable], capture_output=True, text=True, timeout=100, check=False
    )
    assert told.returncode == 0, told.stderr
