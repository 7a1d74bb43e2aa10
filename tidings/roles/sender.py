"""The sender as a process."""

from __future__ import annotations

import asyncio

from projections.sql.store import Store
from sender import service
from sender.settings import SenderSettings as RoomSettings
from tidings.roles.opened_log import opened
from tidings.roles.process import serve
from tidings.settings import SenderSettings


def main(settings: SenderSettings) -> int:
    """Until a signal; the exit code."""

    async def work(stop: asyncio.Event) -> int:
        if not await opened(settings.cluster, settings.catalogue, stop):
            return 0
        store = Store(settings.database.get_secret_value())
        try:
            return await service.run(room_settings(settings), store, settings.cluster, settings.catalogue, stop)
        finally:
            store.close()

    return serve(work)


def room_settings(settings: SenderSettings) -> RoomSettings:
    """In the sender's own words. Half of a lease is for an attempt, the rest for the way to it and back."""
    lease_s = settings.sender_lease.total_seconds()
    return RoomSettings(
        smtp=settings.smtp.get_secret_value() if settings.smtp else None,
        mail_from=settings.mail_from,
        channels={name: url.get_secret_value() for name, url in settings.channel.items()},
        lease_s=lease_s,
        attempt_s=lease_s / 2,
        metrics_port=settings.metrics_port,
    )
