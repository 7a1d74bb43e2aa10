"""The load client, compiled when it is needed; the processor time of processes, and what the machine did beside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
HEAD = (
    "GET {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    "sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
)
SERVER_CORE, LOAD_CORE = "0", str(max(1, (os.cpu_count() or 2) - 1))
QUIET_S = 60.0


@dataclass(frozen=True, slots=True)
class Talk:
    """How a client talks with one side: `frames` it says when connected, `ready` answers and it is there."""

    path: str
    head: str = ""
    frames: tuple[str, ...] = ()
    ready: int = 0
    tokens: tuple[str, ...] = ("-",)


@dataclass(frozen=True, slots=True)
class Figures:
    """What the client found; times in ms, of the `measured` deliveries; `cpu` its own seconds."""

    deliveries: int
    measured: int
    missing: int
    repeated: int
    closed: int
    p50: float
    p99: float
    max: float
    cpu: float


def pinned(core: str, *command: str) -> list[str]:
    """A command on one core."""
    return ["taskset", "-c", core, *command]


class Programs:
    """The C programs, compiled into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("client", "loop"):
            source = SOURCES / f"{name}.c"
            subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(folder / name), str(source)], check=True)

    @contextmanager
    def client(self, port: int, connections: int, talk: Talk, *, stride: int = 1, skip: int = 0) -> Iterator[Client]:
        """Connected, and there."""
        files = {
            "head": HEAD.format(path=talk.path, port=port, more=talk.head),
            "frames": "".join(f"{frame}\n" for frame in talk.frames),
            "tokens": "".join(f"{token}\n" for token in talk.tokens),
        }
        for name, text in files.items():
            (self.folder / name).write_text(text, newline="")
        paths = [str(self.folder / name) for name in files]
        command = [str(self.folder / "client"), str(port), str(connections), *paths]
        command = pinned(LOAD_CORE, *command, str(talk.ready), str(stride), str(skip))
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            client = Client(process)
            client.hear("ready")
            yield client
        finally:
            process.kill()
            process.wait()


class Client:
    """A running client."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process, self.pid = process, process.pid

    def hear(self, word: str) -> str:
        """The next line, which begins so."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line.startswith(word), f"{line!r} instead of {word!r}"
        return line.removeprefix(word).strip()

    def tell(self, command: str) -> None:
        """A command; returns when it is done."""
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self.hear("done")

    def count(self) -> int:
        """How many deliveries there were so far."""
        assert self._process.stdin
        self._process.stdin.write("count\n")
        self._process.stdin.flush()
        found = int(self.hear("counted"))
        self.hear("done")
        return found

    def figures(self) -> Figures:
        """It ends, and says what it found."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        found: dict[str, Any] = json.loads(self._process.stdout.read())
        return Figures(**found)


def produce(where: str, topic: str, kind: str, *, rate: float, count: int, first: int = 0) -> subprocess.Popen[bytes]:
    """Begin to send `count` messages."""
    command = [sys.executable, "-m", "bench.live.producer", where, topic, kind, str(rate), str(count), str(first)]
    return subprocess.Popen(pinned(LOAD_CORE, *command))


def cpu_s(*pids: int) -> float:
    """Processor seconds that these have taken."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def busy_s() -> float:
    """Processor seconds that the whole machine has taken, for whatever."""
    user, nice, system, _, _, irq, softirq = (int(n) for n in Path("/proc/stat").read_text().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


class Others:
    """The share of the machine that was taken by what is not of the run; `ours` are all processes of the run."""

    def __init__(self, *ours: int) -> None:
        self._ours = ours
        self._busy, self._own, self._at = busy_s(), cpu_s(*ours), time.monotonic()

    def share(self, *gone: float) -> float:
        """Since it was made; `gone`: what processes took that have ended since."""
        spent = busy_s() - self._busy - (cpu_s(*self._ours) - self._own) - sum(gone)
        return max(0.0, spent / (time.monotonic() - self._at) / (os.cpu_count() or 1))
