"""A whole Tidings of its own for one benchmark: `tidings up` in an empty directory, on free ports."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TIDINGS = str(Path(sys.executable).with_name("tidings"))


@dataclass(frozen=True, slots=True)
class Site:
    """Where a running `up` answers. `started_s`: from the command to its printed URL."""

    port: int
    data: Path
    process: subprocess.Popen[str]
    started_s: float

    @property
    def bootstrap(self) -> str:
        """The embedded broker's address."""
        return str(self.facts["bootstrap"])

    @property
    def facts(self) -> dict[str, Any]:
        """What `up` says of itself."""
        found: dict[str, Any] = json.loads((self.data / "up.json").read_text())
        return found

    def token(self, *who: str) -> str:
        """A signed token, by the command line."""
        done = subprocess.run(
            [TIDINGS, "token", *who, "--data", str(self.data)], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def environment(self) -> dict[str, str]:
        """For other roles that join this installation."""
        return os.environ | {
            "TIDINGS_KAFKA": self.bootstrap,
            "TIDINGS_DATABASE": f"sqlite:///{self.data}/tidings.db",
            "TIDINGS_ENTITY_TYPES": ",".join(self.facts["entity_types"]),
        }


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def site(data: Path, *arguments: str) -> Iterator[Site]:
    """Start `tidings up`, wait for its URL, stop it in order at the end."""
    port = free_port()
    begun = time.monotonic()
    process = subprocess.Popen(
        [TIDINGS, "up", "--data", str(data), "--port", str(port), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout
        for line in process.stdout:
            if "#token=" in line:
                break
        else:
            message = f"`tidings up` ended with {process.wait()} before it was ready"
            raise RuntimeError(message)
        yield Site(port, data, process, time.monotonic() - begun)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
