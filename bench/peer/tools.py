"""The load generator and the listener, compiled when they are needed: what measures costs little beside what is
measured.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent
QUIET_S = 5  # without a push, and the listener ends


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of the load generator found; times in ms. `cut`: connections that the server ended."""

    accepted: int
    refused: int
    cut: int
    requests: int
    seconds: float
    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Pushes:
    """What the listener found; times in ms from the POST to the push, `last` in ns of the monotonic clock."""

    pushes: int
    p50: float
    p99: float
    max: float
    last: int


class Tools:
    """Both programs, compiled into `folder` by the machine's C compiler."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("load", "listen"):
            source = SOURCES / f"{name}.c"
            subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", str(folder / name), str(source)], check=True)

    def load(
        self, side: str, port: int, token: str, *, connections: int, seconds: float, batch: int, users: int
    ) -> subprocess.Popen[str]:
        """Begin to send."""
        arguments = (side, port, connections, seconds, 0, batch, users, token)
        return subprocess.Popen([str(self._folder / "load"), *map(str, arguments)], stdout=subprocess.PIPE, text=True)

    @contextmanager
    def listener(self, port: int, tokens: list[str]) -> Iterator[subprocess.Popen[str]]:
        """Somebody who watches the inbox of each token; ends when nothing is pushed any longer."""
        file = self._folder / "tokens"
        file.write_text("".join(f"{token}\n" for token in tokens))
        command = [str(self._folder / "listen"), str(port), str(file), str(QUIET_S)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()
            process.wait()


def sent(process: subprocess.Popen[str]) -> Load:
    """What it has to say at its end."""
    return Load(**_said(process))


def pushed(process: subprocess.Popen[str]) -> Pushes:
    """What it has to say at its end."""
    return Pushes(**_said(process))


def _said(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout
    text = process.stdout.read()
    assert process.wait() == 0, text
    found: dict[str, Any] = json.loads(text)
    return found
