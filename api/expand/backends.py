"""The backends that may be asked for an entity instead of the log: where they are, which paths they offer, what an
answer may cost.

An address is only ever the settings' base and one of the settings' paths; of what others wrote, an entity's id alone
gets into it, as one percent-encoded segment that no server can take for another path.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from topics.durations import milliseconds

KIB = 1024
LONGEST_ID = 1_000
_segment = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|\{id\}|\{type\})+")
_control = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_host = re.compile(r"[a-z0-9._-]+|[0-9a-f:.]+")  # a name (others in punycode) or an address
_METADATA = [
    ip_network(n)
    for n in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32", "168.63.129.16/32")
]


class BadId(ValueError):
    """An id that can't stand in a path."""


def _path(pattern: str) -> str:
    parts = pattern.split("/")
    if parts[0] or len(parts) < 2 or not all(_segment.fullmatch(p) and p not in {".", ".."} for p in parts[1:]):
        raise ValueError(
            f"{pattern[:100]!r} is no path: it begins with /, has no empty, . or .. segment, "
            "and nothing but {id} and {type} stands for something"
        )
    return pattern


def _seconds(given: Any) -> Any:
    if isinstance(given, str) and given.strip().isascii() and given.strip().isdigit():
        given = int(given.strip())
    return milliseconds(given) / 1000


Seconds = Annotated[float, BeforeValidator(_seconds)]


class Backend(BaseModel):
    """One backend. Times in seconds (or texts like `5m`), sizes in bytes."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: str  # the base: scheme, host, port, and the beginning of the path
    paths: Annotated[tuple[Annotated[str, AfterValidator(_path)], ...], Field(min_length=1)]
    auth: Literal["service", "subscriber"] = "service"
    token: SecretStr | None = None  # auth = "service": the bearer token that the backend is shown
    timeout: Annotated[Seconds, Field(gt=0, le=60)] = 2.0  # for everything, from the name to the last byte
    concurrency: Annotated[int, Field(ge=1, le=1_000)] = 8
    largest: Annotated[int, Field(ge=1, le=4 * KIB * KIB)] = 512 * KIB
    cache: Annotated[int, Field(ge=0)] = 8 * KIB * KIB
    cache_time: Seconds = 60.0
    link_local: bool = False  # whether its name may lead to link-local and metadata addresses

    @model_validator(mode="after")
    def _whole(self) -> Self:
        self._check_url()
        if self.auth == "subscriber" and self.token is not None:
            raise ValueError("`token` belongs to auth = service: subscribers are passed on with their own")
        if self.token is not None and not re.fullmatch(r"[\x21-\x7e]+", self.token.get_secret_value()):
            raise ValueError("`token` has characters that can't stand in a header")
        return self

    def _check_url(self) -> None:
        parts = urlsplit(self.url)
        known = parts.scheme in {"http", "https"}
        if not known or not _host.fullmatch(parts.hostname or "") or not self.url.isprintable():
            raise ValueError("`url` begins with http:// or https:// and a host")
        if parts.username is not None or parts.query or parts.fragment or "?" in self.url or "#" in self.url:
            raise ValueError("`url` has no user, query or fragment: a token belongs into `token`")
        if parts.path.rstrip("/"):
            _path(parts.path.rstrip("/"))
        if "{" in self.url or parts.port == 0:  # a wrong port raises ValueError by itself
            raise ValueError("`url` names one place; what varies stands in `paths`")
        try:
            address = ip_address(parts.hostname or "")
        except ValueError:
            return  # a name: looked at whenever it is resolved
        if not self.allows(str(address)):
            raise ValueError("`url` is a link-local or metadata address: say link_local = true if that is meant")

    def allows(self, address: str) -> bool:
        """Whether this backend may be at this IP address."""
        found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
        if isinstance(found, IPv6Address) and found.ipv4_mapped:
            found = found.ipv4_mapped
        if found.is_multicast or found.is_unspecified:
            return False
        return self.link_local or not any(found in network for network in _METADATA)

    def target(self, path: str, entity_type: str, entity_id: str) -> str:
        """The request's target for an entity. BadId."""
        _check_id(entity_id)
        filled = path.replace("{type}", quote(entity_type, safe="")).replace("{id}", quote(entity_id, safe=""))
        return f"{urlsplit(self.url).path.rstrip('/')}{filled}"


def _check_id(entity_id: str) -> None:
    """Proxies and backends decode once or several times, and then look for steps upwards."""
    plain = entity_id
    while len(plain) <= LONGEST_ID:
        if _control.search(plain) or any(s in {"", ".", ".."} for s in re.split(r"[/\\]", plain)):
            break
        decoded = unquote(plain)
        if decoded == plain:
            return
        plain = decoded
    raise BadId("This entity's id can't stand in a path.")
