"""The roles of an installation as processes that can be killed at any moment and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

COMMAND = "tidings.cli.main"


@dataclass
class Role:
    """One role: `tidings NAME …` with its environment; its log goes to a file."""

    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    kills: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it, whatever became of the one before."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", COMMAND, self.name, *self.arguments],
                env=os.environ | self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def revive(self) -> None:
        """What a supervisor does: start it again if it ended."""
        if self.process is None or self.process.poll() is not None:
            self.start()

    def kill(self) -> None:
        """Kill -9, and start it again at once."""
        assert self.process
        self.kills.append(time.time())
        self.process.kill()
        self.process.wait(10)
        self.start()

    def stop(self) -> None:
        """End it for good."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
