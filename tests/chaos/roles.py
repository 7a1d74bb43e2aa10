"""The roles of an installation as processes that can be killed and frozen at any moment, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
Span = tuple[float, float]


@dataclass
class Role:
    """One role: `tidings NAME …` with its environment; its log goes to a file.

    `off_s`: how wrong its clock is from its next start on. `kills` and `freezes` are the test's own times.
    """

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]
    log: Path
    wanted: bool = True
    off_s: float = 0
    process: subprocess.Popen[bytes] | None = None
    kills: list[float] = field(default_factory=list)
    freezes: list[Span] = field(default_factory=list)
    restarts: int = 0
    frozen: bool = False

    def start(self) -> None:
        """Start it, whatever became of the one before."""
        program = ["tests.chaos.skewed", str(self.off_s)] if self.off_s else ["tidings.cli.main"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *program, *self.command],
                env=os.environ | self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def revive(self) -> None:
        """What a supervisor does: start it again if it ended."""
        if self.wanted and (self.process is None or self.process.poll() is not None):
            self.restarts += self.process is not None
            self.start()

    def kill(self) -> None:
        """Kill -9."""
        if self.process and self.process.poll() is None:
            self.kills.append(time.time())
            self.process.kill()
            self.process.wait(10)

    def freeze(self) -> subprocess.Popen[bytes] | None:
        """SIGSTOP; the process that `thaw` is for."""
        process = self.process
        if process is None or process.poll() is not None:
            return None
        process.send_signal(signal.SIGSTOP)
        self.frozen = True
        return process

    def thaw(self, process: subprocess.Popen[bytes], since: float) -> None:
        """SIGCONT, if it still lives."""
        self.frozen = False
        self.freezes.append((since, time.time()))
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End it in order."""
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(10)
