"""Runs the node tests of the page's inbox store: it has no build step and no browser in it, so plain node is its bench.

A machine without node fails here rather than passing over the rule that the badge never drifts.
"""

import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent


def test_the_view_is_the_fold_of_the_log_at_every_moment() -> None:
    node = shutil.which("node")
    assert node, "node (18 or newer) is needed: apt-get install nodejs"
    run = subprocess.run(
        [node, "--test", str(HERE / "inbox_store.test.mjs")], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
