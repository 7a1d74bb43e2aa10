"""Tasks without which a gateway is none."""

from __future__ import annotations

import asyncio
import logging
import os

log = logging.getLogger(__name__)
PLEASE_RESTART = 3


def must_not_fail(task: asyncio.Task[None]) -> None:
    """One that ended without being told to is a bug: the process ends, its supervisor starts another."""
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("a task ended task=%s error=%s", task.get_coro(), type(error).__name__, exc_info=error)
        os._exit(PLEASE_RESTART)
