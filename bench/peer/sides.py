"""The two sides of the comparison: how each is started, killed, and asked how much it holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from api.access.tokens import sign
from bench.site import Site, free_port, site
from bench.start import family, pss
from projections.sql.store import Store
from projections.sql.views import positions
from topics.catalogue import NOTICES

USERS = 100
READY_S = 30.0
NOBODY = "route:\n  receiver: nobody\nreceivers:\n  - name: nobody\n"


class Side(Protocol):
    """A running server. `name` is what the load generator calls it; `pids` are all its processes."""

    name: str
    port: int
    token: str

    @property
    def pids(self) -> list[int]:
        """All its processes."""

    def held(self) -> int:
        """How many notices can be read there now."""


def cpu_s(pids: list[int]) -> float:
    """CPU seconds that these processes have taken."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory_mb(pids: list[int]) -> float:
    """PSS of these processes together."""
    return sum(pss(pid)[1] for pid in pids)


def kill(pids: list[int]) -> None:
    """All of them, at once, without a word."""
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


class Tidings:
    """`tidings up` with an empty directory; the broker, the database and all roles count."""

    name = "tidings"

    def __init__(self, running: Site) -> None:
        self._running, self.port = running, running.port
        self._secret = (running.data / "secret").read_text().strip()
        self.token = sign(self._secret, "bench", ["notices:write"], ttl_s=86_400)
        self._store = Store(f"sqlite:///{running.data}/tidings.db")

    @property
    def pids(self) -> list[int]:
        """Supervisor, broker, worker, gateway, sender."""
        return family(self._running.process.pid)

    def tokens(self) -> list[str]:
        """One for each user."""
        return [sign(self._secret, f"u{i}", ttl_s=86_400) for i in range(USERS)]

    def stored(self) -> int:
        """How many records of `notices` the rows hold."""
        with self._store.reading() as tx:
            return sum(at.next for at in positions.reached(tx, NOTICES).values())

    def held(self) -> int:
        """By the users' own counts."""
        return sum(_get(self.port, "/v1/notices/counts", token)["unread"] for token in self.tokens())


class Alertmanager:
    """Debian's, alone, telling nobody: the least that it can have to do."""

    name = "alertmanager"
    token = "none"  # noqa: S105 - it asks for none

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self._process, self.port = process, port

    @property
    def pids(self) -> list[int]:
        """One."""
        return [self._process.pid]

    def held(self) -> int:
        """The alerts that it lists."""
        return len(_get(self.port, "/api/v2/alerts", ""))


@contextmanager
def tidings(folder: Path) -> Iterator[Tidings]:
    """Started; what is in the folder is found again."""
    with site(folder / "tidings", "--no-demo") as running:
        yield Tidings(running)


@contextmanager
def alertmanager(folder: Path) -> Iterator[Alertmanager]:
    """Started; what is in the folder is found again."""
    port = free_port()
    (folder / "alertmanager.yml").write_text(NOBODY)
    command = ["prometheus-alertmanager", f"--config.file={folder}/alertmanager.yml"]
    command += [f"--storage.path={folder}/alertmanager", f"--web.listen-address=127.0.0.1:{port}"]
    process = subprocess.Popen([*command, "--cluster.listen-address="], stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "Alertmanager does not start"
                time.sleep(0.05)
        yield Alertmanager(process, port)
    finally:
        process.kill()
        process.wait()


def _get(port: int, path: str, token: str) -> dict[str, int]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        found: dict[str, int] = json.load(answer)
        return found
