"""What `tidings doctor` asks, one question after another; each answer is null, or what is wrong and what to do
about it.

A question that can't be asked (no database is set here, say) is left out: what is not said was not looked at.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from api.expand.backends import Backend
from tidings.cli.log_of import kafka_settings, running_at, secret_of
from tidings.gateway_client import GatewayClient, Refused, Unreachable
from tidings.settings import BackendSettings, KafkaSettings, SenderSettings, read
from tidings.settings_source import SettingsError

TIMEOUT_S = 5.0
MANY_CONNECTIONS = 10_000
SHORT_SECRET = 32  # bytes, as RFC 7518 asks of HS256


def examine(data: Path) -> Iterator[tuple[str, str | None]]:
    """(what was asked, what is wrong with it)."""
    running = running_at(data)
    yield (
        f"`tidings up` on {data}",
        None if running else "none runs there: that is right where the roles run on their own",
    )
    try:
        settings = kafka_settings(data)
    except SettingsError as error:
        yield "settings", str(error).replace("\n", "; ")
        return
    yield "settings", None
    fault = _kafka(settings)
    yield f"Kafka at {settings.kafka}", fault
    if fault is None:
        yield "topics", _asked(lambda: _topics(settings))
    database = _given("database") or (f"sqlite:///{data.absolute() / 'tidings.db'}" if running else None)
    if database:
        yield "database", _asked(lambda: _database(database))
    if smtp := _given("smtp"):
        yield "SMTP", _asked(lambda: _smtp(smtp))
    try:
        backends = read(BackendSettings).backends
    except SettingsError as error:
        yield "backends", str(error).replace("\n", "; ")
    else:
        for name, backend in backends.items():
            yield f"backend {name}", _asked(partial(_backend, backend))
    if running:
        yield f"gateway at {running.url}", _asked(lambda: _gateway(running.url))
    yield "secret", _secret(data)
    yield "open files", open_files()


def _given(name: str) -> str | None:
    """A setting that only some roles need, read without asking for the others'."""
    try:
        found = getattr(read(SenderSettings, database=None if name == "database" else "unused"), name)
    except SettingsError:
        return None
    return str(found.get_secret_value()) if found else None


def _asked(question: Callable[[], str | None]) -> str | None:
    try:
        return question()
    except Exception as error:  # noqa: BLE001 - whatever goes wrong is what was asked for
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no more is known'}"


def _kafka(settings: KafkaSettings) -> str | None:
    """Asked in two steps, since the client tells a wrong password and a dead broker by the same words."""
    for server in settings.kafka.split(","):
        host, _, port = server.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S).close()
        except ValueError:
            return f"{server!r} is not host:port: correct TIDINGS_KAFKA"
        except OSError as error:
            return f"nothing answers at {server} ({error.strerror or error}): start it, or correct TIDINGS_KAFKA"
    return None


def _topics(settings: KafkaSettings) -> str | None:
    from topics import provision  # noqa: PLC0415 - loads a Kafka client

    try:
        findings = provision.apply(settings.cluster, settings.catalogue, change=False)
    except RuntimeError as error:
        if type(error).__name__ != "NoBrokersAvailable":
            raise
        return "its port is open, but Kafka lets nobody in: check TIDINGS_KAFKA_SECURITY_PROTOCOL, _SASL_* and _TLS_CA"
    bad = [f"{f.topic.name} is missing" if f.made else f"{f.topic.name} differs" for f in findings if f.made or f.drift]
    return f"{', '.join(bad)}: run `tidings topics apply`" if bad else None


def _database(url: str) -> str | None:
    from projections.sql.schema import STAMP  # noqa: PLC0415 - loads SQLAlchemy
    from projections.sql.store import Store, generation  # noqa: PLC0415

    store = Store(url)
    try:
        with store.reading() as tx:
            stamp, _ = generation(tx)
    finally:
        store.close()
    if stamp > STAMP:
        return "a newer Tidings has written it: use that one"
    return "it has no rows of this version yet: start the worker" if stamp < STAMP else None


def _smtp(url: str) -> str | None:
    parts = urlsplit(url)
    port = parts.port or (465 if parts.scheme == "smtps" else 25)
    with socket.create_connection((parts.hostname or "", port), TIMEOUT_S) as connection:
        if parts.scheme == "smtps" or connection.recv(4).startswith(b"220"):
            return None
    return f"{parts.hostname}:{port} does not greet as an SMTP server does: correct TIDINGS_SMTP"


def _backend(backend: Backend) -> str | None:
    parts = urlsplit(backend.url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    for address in {str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}:
        if not backend.allows(address):
            return f"{host} leads to {address}, a link-local or metadata address: correct `url`, or set `link_local`"
    socket.create_connection((host, port), TIMEOUT_S).close()
    return None


def _gateway(url: str) -> str | None:
    try:
        with GatewayClient(url, timeout=TIMEOUT_S) as client:
            client.call("GET", "/readyz")
    except Refused as refused:
        return f"it waits for {', '.join(refused.problem.get('waiting_for', [])) or refused}"
    except Unreachable as error:
        return str(error)
    return None


def open_files() -> str | None:
    """A gateway refuses whom it has no file for; it raises its own limit as far as it may."""
    from tidings.roles.gateway import most_connections  # noqa: PLC0415 - loads the gateway

    if (connections := most_connections()) >= MANY_CONNECTIONS:
        return None
    return f"a gateway here can hold {connections} connections: raise the hard limit (LimitNOFILE=, ulimit -Hn)"


def _secret(data: Path) -> str | None:
    secret = secret_of(data)
    if secret is None:
        return f"neither TIDINGS_SECRET is set nor has {data} one: no token can be signed here"
    if len(secret.encode()) < SHORT_SECRET:
        return f"it is shorter than {SHORT_SECRET} bytes and can be guessed: make one with `openssl rand -base64 48`"
    return None
