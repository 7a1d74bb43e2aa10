"""The README's first ten minutes, typed in by a test."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.command_line import ROOT, bare, until
from tests.integration.test_up import up


@pytest.mark.timeout(180)
def test_what_the_readme_says_happens(tmp_path: Path) -> None:
    blocks = re.findall(r"^( *)```sh\n(.*?)^ *```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 3
    script = "set -eu\n" + "\n".join(textwrap.dedent(block) for _, block in blocks)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with up(tmp_path) as running:
        until(lambda: any(t.startswith("Tidings watches") for t in running.titles()), 30, "the first notice")
        typed = subprocess.Popen(
            ["bash", "-c", script.replace("http://127.0.0.1:8080", running.url)],
            cwd=tmp_path,
            env=bare(),
            stdout=(tmp_path / "typed.txt").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            assert typed.wait(timeout=60) == 0, (tmp_path / "typed.txt").read_text()
            until(lambda: running.has("memory of db-1 is 93.1%"), 30, "the notice of the config")
            until(lambda: running.has("db-1 has 71 °C"), 30, "the notice of the own alert")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(typed.pid, signal.SIGTERM)  # the wrapper, which goes on in the background
