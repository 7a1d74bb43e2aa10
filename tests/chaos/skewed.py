"""`python -m tests.chaos.skewed SECONDS worker …`: the real program under a clock that is wrong by so much."""

from __future__ import annotations

import sys
import time

OFF_S = float(sys.argv.pop(1))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + OFF_S
time.time_ns = lambda: _time_ns() + int(OFF_S * 1e9)

from tidings.cli.main import main  # noqa: E402 - whoever keeps a clock's function keeps the wrong one

main()
