"""What every role is as a process: it logs, it stops at SIGTERM and SIGINT, and its exit code says whether to start
it again.

0: stopped as asked. 1: it can't go on, the line before says why. 3: please restart me.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable

import uvloop

RESTART = 3
PR_SET_PDEATHSIG = 1
log = logging.getLogger(__name__)


def die_with(parent: int) -> None:
    """Linux: the kernel ends this process when `parent` ends. One that is gone already is found out by who the
    parent is.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(RESTART)


def serve(work: Callable[[asyncio.Event], Awaitable[int]]) -> int:
    """Run `work` in an event loop until it ends or a signal asks it to stop; the exit code."""

    async def main() -> int:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        return await work(stop)

    gc.freeze()  # what is loaded by now stays
    gc.set_threshold(10_000, 20, 20)  # the default, 700, looks for cycles so often that it takes 6 % of a busy gateway
    return guarded(lambda: uvloop.run(main()))


def serve_threads(work: Callable[[threading.Event], int]) -> int:
    """As `serve`, for a role that runs threads instead of a loop."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return guarded(lambda: work(stop))


def guarded(work: Callable[[], int]) -> int:
    """A bug ends the process with "please restart me"; what the system refuses is told in one line."""
    try:
        return work()
    except OSError as error:
        log.error("can't go on error=%r", str(error))  # noqa: TRY400 - a taken port or a full disk needs no traceback
        return 1
    except Exception:
        log.exception("ending because of something nobody foresaw")
        return RESTART
