"""A gateway as a process of its own, to be attacked, frozen and killed, with limits as the test wants them.

`python -m tests.integration.gateway_process JSON` is that process: the real server with its real logs. It listens with
SO_REUSEPORT, so that several of them share a port.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil

from api.access.tokens import sign
from api.server import serve
from api.settings import GatewaySettings, Limits
from tests.integration.gateway_world import ALL, SECRET, Site
from tidings.logs import configure
from tidings.roles import process
from topics.catalogue import Catalogue
from topics.cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
MIB = 1024 * 1024
# What a gateway may never say: a request that broke, a task that nobody looked after, a protocol without a net.
FAULT = re.compile(r"Traceback|ERROR|CRITICAL|never retrieved|internal|Exception")


class GatewayProcess:
    """One gateway on `site`. `port` 0 is a free one, known from the first start on."""

    def __init__(self, site: Site, log: Path, *, port: int = 0, **limits: Any) -> None:
        self._site, self._limits, self.log, self.port = site, limits, log, port
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start it, and return when it listens."""
        given = {
            "kafka": self._site.cluster.bootstrap,
            "types": self._site.catalogue.entity_types,
            "prefix": self._site.catalogue.prefix,
            "partitions": self._site.catalogue.partitions,
            "database": self._site.url,
            "port": self.port,
            "limits": self._limits,
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.gateway_process", json.dumps(given)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, self.said
        self.port = int(line)

    def signal(self, number: signal.Signals) -> None:
        """SIGKILL, SIGSTOP, SIGCONT, SIGTERM."""
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(10)

    def stop(self) -> None:
        """End it in order, or at once if it does not."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        if self._process is not None and self._process.stdout is not None:
            self._process.stdout.close()

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def memory(self) -> int:
        """Its resident memory in bytes."""
        assert self._process is not None
        found: int = psutil.Process(self._process.pid).memory_info().rss
        return found

    @property
    def peers(self) -> int:
        """How many connections of clients it has."""
        assert self._process is not None
        found = psutil.Process(self._process.pid).net_connections("tcp")
        return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == self.port for c in found)

    @property
    def said(self) -> str:
        """Its log."""
        return self.log.read_text(errors="replace")

    @property
    def faults(self) -> list[str]:
        """Lines of its log that no client may cause, and no broker either: how aiokafka speaks of it does not count."""
        return [line for line in self.said.splitlines() if FAULT.search(line) and " aiokafka" not in line]

    @property
    def url(self) -> str:
        """Where it answers HTTP."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> str:
        """Where it answers WebSocket."""
        return f"ws://127.0.0.1:{self.port}/v1/ws"


def token(user: str = "u1", scopes: tuple[str, ...] = ALL, **more: Any) -> str:
    """What these gateways accept."""
    return sign(SECRET, user, scopes, ttl_s=3600, **more)


def main() -> None:
    given: dict[str, Any] = json.loads(sys.argv[1])
    process.die_with(os.getppid())
    configure("gateway")
    settings = GatewaySettings(
        cluster=Cluster(given["kafka"]),
        catalogue=Catalogue(tuple(given["types"]), prefix=given["prefix"], partitions=given["partitions"]),
        database=given["database"],
        port=given["port"],
        reuse_port=True,
        secret=SECRET,
        limits=Limits(**given["limits"]),
        shutdown=3,
    )

    async def work(_stop: asyncio.Event) -> int:
        await serve(settings, lambda port: print(port, flush=True))  # noqa: T201 - whoever started it wants to know
        return 0

    raise SystemExit(process.serve(work))


if __name__ == "__main__":
    main()
