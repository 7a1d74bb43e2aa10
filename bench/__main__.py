"""`python -m bench [start|paths|inbox|explain|peer|rebuild|backlog|clock|fan_out]`: all without a name.

Prints Markdown, as in docs.
"""

from __future__ import annotations

import os
import sys

from bench import backlog, clock, explain, fan_out, inbox, paths, rebuild, start
from bench.peer import run as peer

BENCHMARKS = {
    "start": start.main,
    "paths": paths.main,
    "inbox": inbox.main,
    "explain": explain.main,
    "peer": peer.main,
    "rebuild": rebuild.main,
    "backlog": backlog.main,
    "clock": clock.main,
    "fan_out": fan_out.main,
}


def main() -> None:
    """Run the named benchmarks."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before the run\n")
    for name in sys.argv[1:] or BENCHMARKS:
        print(f"## {name}\n")
        BENCHMARKS[name]()


if __name__ == "__main__":
    main()
