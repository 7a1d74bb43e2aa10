"""The gateway as a process. Under `tidings up` it also passes the page's questions about the demo on to it."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Mapping
from dataclasses import fields, replace

from api import server
from api.settings import DemoHooks, Limits
from api.settings import GatewaySettings as RoomSettings
from tidings.demo.hooks import Asker
from tidings.roles.opened_log import opened
from tidings.roles.process import serve
from tidings.settings import GatewaySettings

ALWAYS = "email"  # needs no setting of its own here: where it leads is the sender's business
SHUTDOWN_S = 4.0
SPARE_FILES = 1_000  # for HTTP requests, Kafka and the database


def main(settings: GatewaySettings) -> int:
    """Until a signal; the exit code."""
    room = room_settings(settings)
    connections = min(room.limits.connections, most_connections())

    async def work(stop: asyncio.Event) -> int:
        if not await opened(settings.cluster, settings.catalogue, stop):
            return 0
        await server.serve(replace(room, limits=replace(room.limits, connections=connections)))
        return 0

    return serve(work)


def room_settings(settings: GatewaySettings) -> RoomSettings:
    """In the gateway's own words."""
    return RoomSettings(
        cluster=settings.cluster,
        catalogue=settings.catalogue,
        database=settings.database.get_secret_value(),
        host=settings.host,
        port=settings.port,
        reuse_port=settings.reuse_port,
        metrics_port=settings.metrics_port,
        secret=settings.secret.get_secret_value() if settings.secret else None,
        jwks=settings.jwks,
        token_issuer=settings.token_issuer,
        token_audience=settings.token_audience,
        forward_after=settings.forward_after.total_seconds(),
        channels=(ALWAYS, *(name for name in settings.channel if name != ALWAYS)),
        origins=settings.origins,
        trusted_proxies=settings.trusted_proxies,
        drain=settings.drain.total_seconds(),
        limits=limits(settings.limit),
        backends=settings.backends,
        demo=_hooks(Asker(settings.demo.get_secret_value())) if settings.demo else None,
        shutdown=SHUTDOWN_S,
    )


def most_connections() -> int:
    """How many the system lets this process have, once its limit of open files is as high as it may be."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return max(most - SPARE_FILES, most // 2)


def limits(given: Mapping[str, float]) -> Limits:
    """The defaults, but for these; sizes and numbers are whole."""
    whole = {limit.name for limit in fields(Limits) if limit.type == "int"}
    return Limits(**{name: int(value) if name in whole else value for name, value in given.items()})  # type: ignore[arg-type]


def _hooks(asker: Asker) -> DemoHooks:
    return DemoHooks(
        mail=asker.mail if "mail" in asker.answered else None,
        stress=asker.stress if "stress" in asker.answered else None,
    )
