"""How to reach the Kafka cluster, in the words of both client libraries.

The limits and acknowledgements that the rules need are set here once (see `docs`: kafka-python-ng's defaults lose
data).
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from topics.catalogue import MAX_RECORD_BYTES

VERSIONS_MS = 10_000  # a busy broker does not always say within kafka-python-ng's 2 s what it speaks
REQUEST_BYTES = MAX_RECORD_BYTES + 64 * 1024


START_S = 10.0


class Client(Protocol):
    """One of aiokafka's."""

    async def start(self) -> None:
        """Connect."""


async def connect(client: Client) -> None:
    """Start it. Whoever gives up meanwhile waits all the same: half started, it would leave a connection open."""
    starting = asyncio.ensure_future(client.start())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        await asyncio.wait([starting], timeout=START_S)
        raise


@dataclass(frozen=True, slots=True)
class Cluster:
    """`bootstrap`: host:port, comma-separated. Security as Kafka names it; `tls_ca` a PEM file."""

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None
    tls_ca: Path | None = None

    def for_aiokafka(self) -> dict[str, Any]:
        """Connection arguments of aiokafka's clients."""
        out: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.security_protocol}
        if "SSL" in self.security_protocol:
            out["ssl_context"] = ssl.create_default_context(cafile=str(self.tls_ca) if self.tls_ca else None)
        return out | self._sasl()

    def for_kafka_python(self) -> dict[str, Any]:
        """Connection arguments of kafka-python-ng's clients."""
        out: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
            "api_version_auto_timeout_ms": VERSIONS_MS,
        }
        if self.tls_ca:
            out["ssl_cafile"] = str(self.tls_ca)
        return out | self._sasl()

    def _sasl(self) -> dict[str, Any]:
        if not self.sasl_mechanism:
            return {}
        return {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_plain_username": self.sasl_username,
            "sasl_plain_password": self.sasl_password,
        }
