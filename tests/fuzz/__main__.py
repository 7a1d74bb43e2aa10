"""`make fuzz`: every target in a process of its own, led by atheris to branches that were not seen before.

A target that does what it may not ends the run with exit code 1 and names the file that holds the bytes; such bytes
belong into `seeds.py`, where `make test` shows them to the target for ever.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.seeds import SEEDS

LARGEST = 16 * 1024  # bytes of one input
MEMORY_MIB = 1_024
SLOWEST_S = 5  # one input may take no longer


def main() -> int:
    """All targets, or those that are named; 1 if one of them failed."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(SEEDS))
    parser.add_argument("--seconds", type=int, default=20, help="of each target (20)")
    given = parser.parse_args()
    failed = [name for name in given.targets or SEEDS if not _holds(name, given.seconds)]
    print("failed: " + ", ".join(failed) if failed else "nothing found")  # noqa: T201 - this is a program
    return bool(failed)


def _holds(name: str, seconds: int) -> bool:
    found = Path(tempfile.mkdtemp(prefix=f"fuzz-{name}-"))
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(SEEDS[name]):
            Path(corpus, str(number)).write_bytes(seed)
        bounds = [f"-max_total_time={seconds}", f"-max_len={LARGEST}", f"-rss_limit_mb={MEMORY_MIB}"]
        bounds += [f"-timeout={SLOWEST_S}", f"-artifact_prefix={found}/", "-print_final_stats=1", "-verbosity=0"]
        command = [sys.executable, "-m", "tests.fuzz.guided", name, *bounds, corpus]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    executed = [line.split()[-1] for line in done.stderr.splitlines() if "number_of_executed_units" in line]
    if done.returncode == 0:
        print(f"{name}: {executed[0] if executed else '?'} inputs")  # noqa: T201 - the same
        found.rmdir()
        return True
    print(f"{name}: exit code {done.returncode}, see {found}\n{done.stderr[-4_000:]}")  # noqa: T201 - the same
    return False


if __name__ == "__main__":
    raise SystemExit(main())
