"""Runs `tidings` as people do: as a process, in a directory of its own, with a bare environment."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

TIDINGS = (sys.executable, "-m", "tidings.cli.main")
ROOT = Path(__file__).parents[2]


def bare(**given: str) -> dict[str, str]:
    """The environment without anything that is for Tidings, and with TIDINGS_<given>."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("TIDINGS_")}
    return kept | {"PYTHONPATH": str(ROOT)} | {f"TIDINGS_{name.upper()}": value for name, value in given.items()}


def tidings(
    cwd: Path, *arguments: str, given: dict[str, str] | None = None, stdin: str | bytes = b""
) -> subprocess.CompletedProcess[str]:
    """One command until its end; `given` are settings."""
    sent = stdin.encode() if isinstance(stdin, str) else stdin
    told = subprocess.run(
        [*TIDINGS, *arguments],
        cwd=cwd,
        env=bare(**(given or {})),
        input=sent,
        capture_output=True,
        timeout=90,
        check=False,
    )
    return subprocess.CompletedProcess(told.args, told.returncode, told.stdout.decode(), told.stderr.decode())


def until(condition: Callable[[], T | None], seconds: float, what: str) -> T:
    """The first true answer of `condition`; fails when the time is over."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"{what} did not come within {seconds:g} s")
