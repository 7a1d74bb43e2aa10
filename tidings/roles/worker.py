"""The worker as a process."""

from __future__ import annotations

import asyncio

from streams import worker
from tidings.roles.opened_log import opened
from tidings.roles.process import serve
from tidings.settings import WorkerSettings


def main(settings: WorkerSettings) -> int:
    """Until a signal; the exit code."""

    async def work(stop: asyncio.Event) -> int:
        if not await opened(settings.cluster, settings.catalogue, stop):
            return 0
        return await worker.run(
            worker.WorkerSettings(
                cluster=settings.cluster,
                catalogue=settings.catalogue,
                database=settings.database.get_secret_value(),
                group=settings.topic_prefix + settings.group,
                metrics_port=settings.metrics_port,
            ),
            stop,
        )

    return serve(work)
