"""`python -m bench [start|paths|inbox|peer]`: without a name all. Prints Markdown, as in docs/performance.md."""

from __future__ import annotations

import os
import sys

from bench import inbox, paths, start
from bench.peer import run as peer

BENCHMARKS = {"start": start.main, "paths": paths.main, "inbox": inbox.main, "peer": peer.main}


def main() -> None:
    """Run the named benchmarks."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before the run\n")
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"## {name}\n")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
