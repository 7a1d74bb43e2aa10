"""The README's first ten minutes, and those of the guide to alert programs, typed in by a test."""

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
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/alerts.md")]
    blocks = [b for text in texts for b in re.findall(r"^( *)```sh\n(.*?)^ *```", text, flags=re.DOTALL | re.MULTILINE)]
    assert len(blocks) >= 10
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
            assert typed.wait(timeout=90) == 0, (tmp_path / "typed.txt").read_text()
            shown = (tmp_path / "typed.txt").read_text()
            assert "as it should be" in shown
            assert "heat/oven.jsonl: as expected, messages: 1" in shown
            until(lambda: running.has("memory of db-1 is 93.1%"), 30, "the notice of the config")
            until(lambda: running.has("db-1 has 71 °C"), 30, "the notice of the own alert")
            assert running.has("celsius of oven is 71")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(typed.pid, signal.SIGTERM)  # the wrapper, which goes on in the background
