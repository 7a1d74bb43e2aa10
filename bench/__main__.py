"""`python -m bench [start|paths]`: all of them without a name. Prints Markdown, as it stands in docs/performance.md."""

from __future__ import annotations

import os
import sys

from bench import paths, start

BENCHMARKS = {"start": start.main, "paths": paths.main}


def main() -> None:
    """Run the named benchmarks."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before the run\n")
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"## {name}\n")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
