"""What a gateway has to be told, as plain values: the command line builds it from the environment.

Every limit is named by the setting that a refusal quotes, so that whoever is refused knows what to ask for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from api.expand.backends import Backend
from topics.catalogue import Catalogue
from topics.cluster import Cluster

KIB = 1024


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes in bytes unless named otherwise; times in seconds."""

    entity_body: int = 512 * KIB
    http_body: int = 1024 * KIB
    ndjson_body: int = 16 * 1024 * KIB
    ndjson_lines: int = 10_000
    title_characters: int = 300
    text: int = 16 * KIB
    data: int = 64 * KIB
    users: int = 10_000  # named in one direct notice
    mark_ids: int = 1_000
    silences: int = 1_000  # that one person set and that are not over
    page: int = 200  # rows of one HTTP page
    snapshot_rows: int = 500  # rows of one snapshot frame
    snapshot_bytes: int = 1024 * KIB
    inbox_page: int = 50  # notices in the first snapshot of an inbox
    ws_message: int = 64 * KIB
    write_buffer: int = 4 * 1024 * KIB  # unread frames of one connection before it is cut off
    held_bytes: int = 8 * 1024 * KIB  # frames kept for one subscription while its snapshot goes out
    subscriptions: int = 32  # of one connection
    filter_depth: int = 8
    filter_nodes: int = 64
    resume: int = 50_000  # records that an entity channel goes back
    history_bytes: int = 64 * 1024 * KIB  # of the latest changes kept in memory per entity type, and their frames
    connections: int = 20_000  # live connections of one process
    connections_per_user: int = 100
    connections_per_address: int = 1_000  # an IPv4 address, or the /64 network of an IPv6 address
    commands_per_second: float = 20  # of one connection, in the long run
    command_burst: int = 100  # commands of one connection at once
    expand_waiting: int = 1_000  # events that wait for a backend, of those who share what is fetched
    wait: float = 5  # for the read model to have a write, for `at_least`
    auth: float = 10  # until the first frame has to authenticate
    heartbeat: float = 15  # between the comments of an event stream
    ping_interval: float = 25  # whoever has said nothing for one after a ping is cut off


@dataclass(frozen=True, kw_only=True)
class DemoHooks:
    """What `up` offers its page: the mail its own SMTP server took (newest last), and a way to provoke an alert."""

    mail: Callable[[], Awaitable[list[dict[str, Any]]]] | None = None
    stress: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True, kw_only=True)
class GatewaySettings:
    """`secret` (HS256) or `jwks` (path or URL) checks tokens. `metrics_port` 0 takes a free port, null serves none."""

    cluster: Cluster
    catalogue: Catalogue
    database: str
    host: str = "127.0.0.1"
    port: int = 8080
    reuse_port: bool = False  # several gateways on one port
    metrics_port: int | None = None
    secret: str | None = field(default=None, repr=False)
    jwks: str | None = None
    token_issuer: str | None = None  # what tokens have to say in `iss` and `aud`
    token_audience: str | None = None
    forward_after: float = 300  # seconds
    channels: tuple[str, ...] = ("email", "telegram", "slack", "webhook")
    origins: tuple[str, ...] = ()  # beside the gateway's own
    trusted_proxies: tuple[str, ...] = ()  # addresses and networks whose X-Forwarded-For is believed
    limits: Limits = field(default_factory=Limits)
    backends: Mapping[str, Backend] = field(default_factory=dict)
    demo: DemoHooks | None = None
    drain: float = 2  # seconds over which clients are sent away at the end
    shutdown: float = 8  # seconds for open requests and connections
