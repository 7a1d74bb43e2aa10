"""Which channels there are and who may watch them: checks a `subscribe` and starts it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from api.live.connection import Connection
from api.live.entity_channel import EntitySubscription
from api.live.filters import both, requested
from api.live.inbox_channel import InboxSubscription
from api.live.protocol import Subscribe
from api.problems import Problem, over

if TYPE_CHECKING:
    from api.gateway import Gateway


def subscribe(
    gateway: Gateway, connection: Connection, request_id: int | str | None, asked: Subscribe
) -> asyncio.Task[None]:
    """Check the request and start it; the task ends when the subscription shares the frames of all. Problem."""
    if connection.identity is None:
        raise Problem("unauthorized", "Authenticate first.")
    if asked.channel in connection.subscriptions:
        raise Problem("bad_frame", f"{asked.channel} is subscribed already; unsubscribe it first.")
    if len(connection.subscriptions) >= gateway.settings.limits.subscriptions:
        raise over("subscriptions", gateway.settings.limits.subscriptions, "subscriptions on one connection")
    if asked.channel == "inbox":
        if asked.filter is not None:
            raise Problem("bad_filter", "The inbox takes no filter.")
        if asked.expand is not None:
            raise Problem("bad_expand", "The inbox takes no `expand`: its notices are on the log.")
        subscription: InboxSubscription | EntitySubscription = InboxSubscription(gateway, connection, request_id, asked)
    else:
        subscription = _entities(gateway, connection, request_id, asked)
    connection.watch(asked.channel, subscription)
    subscription.task = asyncio.create_task(subscription.run())
    if asked.since is not None:
        subscription.task.add_done_callback(lambda done: _count_refusal(gateway, asked.channel.partition("/")[0], done))
    return subscription.task


def _count_refusal(gateway: Gateway, kind: str, resumed: asyncio.Task[None]) -> None:
    if not resumed.cancelled() and isinstance(problem := resumed.exception(), Problem):
        gateway.metrics.resumes.labels(kind, problem.extra.get("reason", problem.code)).inc()


def _entities(
    gateway: Gateway, connection: Connection, request_id: int | str | None, asked: Subscribe
) -> EntitySubscription:
    kind, _, entity_type = asked.channel.partition("/")
    live = gateway.entities.get(entity_type) if kind == "entities" else None
    if live is None or connection.identity is None:
        raise Problem("not_found", f"There is no channel {asked.channel[:100]!r}.")
    connection.identity.need(f"entities:read:{entity_type}")
    own = requested(asked.filter, gateway.settings.limits) if asked.filter is not None else None
    enforced = connection.identity.filters.get(entity_type)

    def token() -> str:  # a newer one may have come by `auth`
        return connection.identity.token if connection.identity else ""

    return EntitySubscription(
        gateway,
        connection,
        request_id,
        asked,
        live=live,
        wanted=both(own, enforced),
        enforced=enforced is not None,
        expansion=gateway.expander.expansion(asked.expand, token) if asked.expand else None,
    )
