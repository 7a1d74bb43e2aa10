"""`python -m bench [start|paths|inbox|explain|peer|live|rebuild|backlog|clock|fan_out|wrapper]`: all without a name;
only some parts of one as in `live:idle,filters`.

Prints Markdown, as in docs.
"""

from __future__ import annotations

import os
import sys

from bench import backlog, clock, explain, fan_out, inbox, paths, rebuild, start, wrapper
from bench.live import run as live
from bench.peer import run as peer

BENCHMARKS = {
    "start": start.main,
    "paths": paths.main,
    "inbox": inbox.main,
    "explain": explain.main,
    "peer": peer.main,
    "live": live.main,
    "rebuild": rebuild.main,
    "backlog": backlog.main,
    "clock": clock.main,
    "fan_out": fan_out.main,
    "wrapper": wrapper.main,
}


def main() -> None:
    """Run the named benchmarks."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.2f} before the run\n")
    for given in sys.argv[1:] or BENCHMARKS:
        name, _, parts = given.partition(":")
        print(f"## {name}\n")
        BENCHMARKS[name](*filter(None, parts.split(",")))


if __name__ == "__main__":
    main()
