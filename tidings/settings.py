"""What Tidings can be told, one class for each role; the names are those of the TIDINGS_* variables.

Every value is checked before anything starts, every secret is a SecretStr so that it is never printed, lists are
comma-separated, and durations are seconds or texts like `5m`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from datetime import timedelta
from difflib import get_close_matches
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from api.expand.backends import Backend
from api.settings import Limits
from tidings.settings_source import LIMIT, PREFIX, Given, SettingsError
from topics.catalogue import Catalogue
from topics.cluster import Cluster
from topics.durations import milliseconds
from topics.json_text import parse


def _listed(given: Any) -> Any:
    return tuple(part.strip() for part in given.split(",") if part.strip()) if isinstance(given, str) else given


def _table(given: Any) -> Any:
    try:
        return parse(given) if isinstance(given, str) else given
    except ValueError as error:
        raise ValueError(f"give JSON, or a table in tidings.toml: {error}") from error


def _duration(given: Any) -> Any:
    if isinstance(given, str) and given.strip().isascii() and given.strip().isdigit():
        given = int(given.strip())
    return given if isinstance(given, timedelta) else timedelta(milliseconds=milliseconds(given))


def _entity_type(name: str) -> str:
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii() or len(name) > 100:
        raise ValueError(f"{name!r} can't be an entity type: use letters, digits, - and _")
    return name


def _lease(length: timedelta) -> timedelta:
    if length < SHORTEST_LEASE:
        raise ValueError(f"a lease has at least {SHORTEST_LEASE.seconds} s: an attempt has to end within it")
    return length


def _network(address: str) -> str:
    ip_network(address)
    return address


def _jwks(source: str) -> str:
    from api.access.jwks import wrong_url  # noqa: PLC0415 - only gateways with public keys need it

    if (fault := wrong_url(source)) is not None:
        raise ValueError(fault)
    if "://" not in source and not Path(source).is_file():
        raise ValueError(f"there is no file {source}")
    return source


SHORTEST_LEASE = timedelta(seconds=5)
Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
EntityTypes = Annotated[tuple[Annotated[str, AfterValidator(_entity_type)], ...], BeforeValidator(_listed)]
Duration = Annotated[timedelta, BeforeValidator(_duration)]
BackendName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,100}$")]
Port = Annotated[int, Field(ge=0, le=65535)]


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's own reading: unknown names pass it
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then what was given, then the defaults."""
        return init_settings, Given(settings_cls, known_names())


class KafkaSettings(_Settings):
    """The log: where it is, and the shape of its topics. Every role needs it."""

    kafka: str
    kafka_security_protocol: str = "PLAINTEXT"
    kafka_sasl_mechanism: str | None = None
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_tls_ca: Path | None = None
    entity_types: EntityTypes
    partitions: Annotated[int, Field(ge=1, le=1000)] = 4
    topic_prefix: str = ""
    replication: Annotated[int, Field(ge=1, le=10)] = 1
    entity_lag: Duration = timedelta(hours=24)

    @property
    def cluster(self) -> Cluster:
        """How the clients reach it."""
        password = self.kafka_sasl_password
        return Cluster(
            self.kafka,
            security_protocol=self.kafka_security_protocol.upper(),
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=password.get_secret_value() if password else None,
            tls_ca=self.kafka_tls_ca,
        )

    @property
    def catalogue(self) -> Catalogue:
        """The topics of this installation."""
        lag = round(self.entity_lag.total_seconds() * 1000)
        return Catalogue(self.entity_types, prefix=self.topic_prefix, partitions=self.partitions, entity_lag_ms=lag)


class _TokenSettings(_Settings):
    """Whose tokens they are, and for whom: what signs them and what checks them say the same."""

    token_issuer: str | None = None
    token_audience: str | None = None

    @property
    def claims(self) -> dict[str, str]:
        """What a token says of it."""
        return {n: v for n, v in (("iss", self.token_issuer), ("aud", self.token_audience)) if v is not None}


class _Role(KafkaSettings):
    metrics_port: Port | None = None


class WorkerSettings(_Role):
    """The worker: folds the log into the database."""

    database: SecretStr  # it may hold a password
    group: str = "tidings-worker"


class BackendSettings(_Settings):
    """Who may be asked for entities instead of the log."""

    backends: Annotated[dict[BackendName, Backend], BeforeValidator(_table)] = {}


class GatewaySettings(_Role, _TokenSettings, BackendSettings):
    """The gateway: HTTP, WebSocket, the page. Tokens are checked by `secret` or `jwks`, never by both."""

    database: SecretStr
    host: str = "127.0.0.1"
    port: Port = 8080
    reuse_port: bool = False  # other gateways on this machine listen there too
    secret: SecretStr | None = None
    jwks: Annotated[str, AfterValidator(_jwks)] | None = None
    forward_after: Duration = timedelta(minutes=5)
    origins: Names = ()
    trusted_proxies: Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_listed)] = ()
    drain: Duration = timedelta(seconds=2)  # over which clients are sent away at the end
    limit: dict[str, Annotated[float, Field(gt=0)]] = {}  # those of api.settings.Limits that are to be others
    channel: dict[str, SecretStr] = {}
    demo: SecretStr | None = None  # where `up` answers for its demo, with the word that lets one in

    @model_validator(mode="after")
    def _one_way_to_check_tokens(self) -> Self:
        if (self.secret is None) == (self.jwks is None):
            raise ValueError("set either TIDINGS_SECRET or TIDINGS_JWKS, so that tokens can be checked")
        return self


class SenderSettings(_Role):
    """The sender: e-mail by SMTP, every other channel by its Apprise URL."""

    database: SecretStr
    smtp: SecretStr | None = None
    mail_from: str = "Tidings <tidings@localhost>"
    channel: dict[str, SecretStr] = {}
    sender_lease: Annotated[Duration, AfterValidator(_lease)] = timedelta(seconds=30)


class WrapperSettings(_Role):
    """The wrapper: runs alert programs. `operators`: users that are told when one of them gets nowhere; `state_dir`:
    for what spares a start the reading of the whole log.
    """

    operators: Names = ()
    state_dir: Path | None = None


class ClientSettings(_TokenSettings):
    """What commands need that speak to a gateway or sign tokens."""

    url: str | None = None
    secret: SecretStr | None = None
    token: SecretStr | None = None


class UpSettings(_TokenSettings):
    """`tidings up`: as the roles, but nothing has to be given."""

    kafka: str | None = None
    database: SecretStr | None = None
    smtp: SecretStr | None = None
    entity_types: EntityTypes = ("host",)
    host: str = "127.0.0.1"
    port: Port = 8080
    secret: SecretStr | None = None
    jwks: str | None = None
    partitions: Annotated[int, Field(ge=1, le=1000)] = 4

    @model_validator(mode="after")
    def _signs_its_own_tokens(self) -> Self:
        if self.jwks is not None:
            raise ValueError("TIDINGS_JWKS is for `tidings gateway`: `tidings up` signs the tokens it gives out itself")
        return self


ROLES: tuple[type[_Settings], ...] = (
    WorkerSettings,
    GatewaySettings,
    SenderSettings,
    WrapperSettings,
    ClientSettings,
    UpSettings,
)


def known_names() -> frozenset[str]:
    """Every name that some role knows: one tidings.toml may serve them all."""
    limits = {LIMIT + limit.name for limit in fields(Limits)}
    return frozenset(name for role in ROLES for name in role.model_fields) - {"channel", "limit"} | limits


_S = TypeVar("_S", bound=_Settings)


def read(settings: Callable[..., _S], **arguments: Any) -> _S:
    """The settings of one role; `arguments` that are not None win. SettingsError with a line for each mistake."""
    try:
        return settings(**{name: value for name, value in arguments.items() if value is not None})
    except ValidationError as error:
        raise SettingsError("\n".join(_complaint(e) for e in error.errors(include_url=False))) from None


def _complaint(error: Any) -> str:
    if not error["loc"]:
        return str(error["ctx"]["error"]) if "error" in error.get("ctx", {}) else str(error["msg"])
    parts = error["loc"][:2] if error["loc"][0] == "limit" else error["loc"][:1]
    name = f"{PREFIX}{'_'.join(map(str, parts)).upper()}"
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return f"{name} is not set: {_MISSING.get(name, 'set it in the environment or in tidings.toml')}"
    place = "".join(f"{part}: " for part in error["loc"][len(parts) :] if part != "[key]")
    if error["type"] == "extra_forbidden":
        near = get_close_matches(str(error["loc"][-1]), Backend.model_fields, n=1, cutoff=0.6)
        return f"{name}: {place}there is no such setting" + (f", did you mean {near[0]}?" if near else "")
    return f"{name}: {place}{error['msg'].removeprefix('Value error, ')}"


_MISSING = {
    "TIDINGS_KAFKA": "give Kafka's bootstrap servers (host:port), or start `tidings up` and name its --data directory",
    "TIDINGS_DATABASE": "give an SQLAlchemy URL (sqlite:////var/lib/tidings/tidings.db, postgresql+psycopg://…)",
    "TIDINGS_ENTITY_TYPES": "give the types of your entities, comma-separated (vm,task)",
}
