"""Makes this machine busy: every processor that it may use, for some seconds, at a low priority so that others go
first.

Run as `python -m tidings.demo.stress [SECONDS]`; it ends with whoever started it.
"""

from __future__ import annotations

import os
import sys
import time

SECONDS = 45.0  # long enough for the alert (5 s) and the mail of its notice (30 s) to be seen
LONGEST_S = 60.0


def burn(seconds: float = SECONDS) -> None:
    """Keep one process busy for each processor, this one among them."""
    until = time.monotonic() + min(seconds, LONGEST_S)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.nice(15)
    children = []
    for _ in range(cpus - 1):
        if (pid := os.fork()) == 0:
            parent = os.getppid()
            while time.monotonic() < until and os.getppid() == parent:
                _work()
            os._exit(0)
        children.append(pid)
    while time.monotonic() < until:
        _work()
    for pid in children:
        os.waitpid(pid, 0)


def _work() -> None:
    number = 0
    for i in range(100_000):
        number = (number * 31 + i) % 1_000_003


if __name__ == "__main__":
    burn(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
