"""The servers that are compared: how each is started on a core of its own, told something, and watched."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from api.access.tokens import sign
from bench.live.tools import SERVER_CORE, Talk, pinned
from bench.log import Log
from bench.site import TIDINGS, free_port
from projections.sql.store import Store
from topics.catalogue import entity_topic

TYPES = ("vm", *(f"t{i}" for i in range(10)))
PEERS = Path(sys.prefix) / "bench-peers"  # python-socketio: `scripts/prerequisites peer` puts it there
CENTRIFUGE = Path(sys.prefix) / "bench-centrifuge"  # Go: put there by the same
NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
SCOPES = ("entities:read:*",)
READY_S = 60.0
SUBSCRIBE = '{"id":1,"subscribe":{"channel":"%s","snapshot":false}}'
CONF = """
load_module {module};
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit;
worker_rlimit_nofile 30000;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  server {{
    listen 127.0.0.1:{port};
    location = /ws {{ nchan_subscriber websocket; nchan_channel_id one; nchan_subscriber_first_message newest; }}
    location = /say {{ nchan_publisher http; nchan_channel_id one; nchan_message_buffer_length 100; }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Side:
    """A server: `where`, `topic` and `kind` are for the producer."""

    name: str
    pids: tuple[int, ...]
    port: int
    talk: Talk
    where: str
    topic: str
    kind: str


class Gateway:
    """One gateway of Tidings on its core."""

    def __init__(self, log: Log, process: subprocess.Popen[bytes], port: int, secret: str) -> None:
        self._log, self.pid, self.port, self._secret = log, process.pid, port, secret

    def talk(self, *frames: str, head: str = "authorization: Bearer %t\r\n", users: int = 0) -> Talk:
        """Who connects, and says what; with `users` each connection is another one."""
        names = [f"user-{i}" for i in range(users)] or ["bench"]
        tokens = tuple(sign(self._secret, name, SCOPES, ttl_s=86_400) for name in names)
        return Talk("/v1/ws", head, frames, len(frames), tokens)

    def side(self) -> Side:
        """One channel."""
        topic = self._log.catalogue.physical(entity_topic("vm"))
        talk = self.talk(SUBSCRIBE % "entities/vm")
        return Side("Tidings", (self.pid,), self.port, talk, self._log.cluster.bootstrap, topic, "vm")

    def memory_kb(self) -> int:
        """What the process holds."""
        return memory_kb(self.pid)


@contextmanager
def gateway(log: Log) -> Iterator[Gateway]:
    """`tidings gateway` with an empty database, pinned."""
    database, port, secret = f"sqlite:///{log.folder}/{secrets.token_hex(4)}.db", free_port(), secrets.token_hex(32)
    store = Store(database)
    store.prepare()
    store.close()
    given = {
        "TIDINGS_KAFKA": log.cluster.bootstrap,
        "TIDINGS_TOPIC_PREFIX": log.catalogue.prefix,
        "TIDINGS_PARTITIONS": str(log.catalogue.partitions),
        "TIDINGS_ENTITY_TYPES": ",".join(log.catalogue.entity_types),
        "TIDINGS_DATABASE": database,
        "TIDINGS_SECRET": secret,
        "TIDINGS_PORT": str(port),
        "TIDINGS_LIMIT_CONNECTIONS_PER_ADDRESS": "20000",
        "TIDINGS_LIMIT_CONNECTIONS_PER_USER": "20000",
    }
    with _running(pinned(SERVER_CORE, TIDINGS, "gateway"), environment=given) as process:
        _until(f"http://127.0.0.1:{port}/v1/me", process)
        _caught_up(f"http://127.0.0.1:{port}/readyz")
        yield Gateway(log, process, port, secret)


@contextmanager
def python_peer(log: Log, name: str) -> Iterator[Side]:
    """Starlette or python-socketio."""
    topic, port = f"peer-{name}-{secrets.token_hex(4)}", free_port()
    asyncio.run(_make(log.cluster.bootstrap, topic))
    command = [sys.executable, "-m", "bench.live.peers", name, str(port), log.cluster.bootstrap, topic]
    talk = Talk("/ws")
    if name == "socketio":
        talk = Talk("/socket.io/?EIO=4&transport=websocket", frames=("40",), ready=1)
    with _running(pinned(SERVER_CORE, *command), environment={"PYTHONPATH": str(PEERS)}) as process:
        _until(f"http://127.0.0.1:{port}/", process)
        names = {"starlette": "Starlette, `send_text`", "socketio": "python-socketio, `emit`"}
        yield Side(names[name], (process.pid,), port, talk, log.cluster.bootstrap, topic, "text")


@contextmanager
def centrifuge(log: Log, *, users: int = 0) -> Iterator[Side]:
    """The library that Centrifugo is made of; with `users` a channel for each, otherwise one for all."""
    topic, port = f"peer-centrifuge-{secrets.token_hex(4)}", free_port()
    asyncio.run(_make(log.cluster.bootstrap, topic))
    command = [str(CENTRIFUGE), str(port), log.cluster.bootstrap, topic, *(["keys"] if users else [])]
    names = tuple(f"user-{i}" for i in range(users)) or ("one",)
    kind = f"text:{users}" if users else "text"
    with _running(pinned(SERVER_CORE, *command)) as process:
        _until(f"http://127.0.0.1:{port}/", process)
        talk = Talk("/ws", frames=('{"id":1,"connect":{"token":"%t"}}',), tokens=names)
        yield Side("centrifuge (Go)", (process.pid,), port, talk, log.cluster.bootstrap, topic, kind)


@contextmanager
def nchan(folder: Path) -> Iterator[Side]:
    """Debian's nginx with nchan, one worker; it takes messages by HTTP."""
    port = free_port()
    (folder / "nginx.conf").write_text(CONF.format(module=NCHAN, folder=folder, port=port))
    with _running(pinned(SERVER_CORE, "nginx", "-p", str(folder), "-c", str(folder / "nginx.conf"))) as process:
        _until(f"http://127.0.0.1:{port}/", process)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        pids = (process.pid, *map(int, children))
        yield Side("nginx with nchan", pids, port, Talk("/ws"), str(port), "/say", "http")


async def _make(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, 1)])
    await admin.close()


def memory_kb(pid: int) -> int:
    """Proportional set size."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


@contextmanager
def _running(command: list[str], environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, env=os.environ | (environment or {}))
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _caught_up(url: str) -> None:
    """It waits for nothing but rows, which no worker makes here: what it tells from now on is news."""
    deadline = time.monotonic() + READY_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10):  # noqa: S310
                return
        except urllib.error.HTTPError as answer:
            waiting = json.load(answer)["waiting_for"]
            if all(what.startswith("rows of ") for what in waiting):
                return
        assert time.monotonic() < deadline, f"it waits for {waiting}"
        time.sleep(0.1)


def _until(url: str, process: subprocess.Popen[bytes]) -> None:
    """It answers, be it with a refusal."""
    deadline = time.monotonic() + READY_S
    while True:
        assert process.poll() is None, f"it ended with {process.returncode}"
        try:
            urllib.request.urlopen(url, timeout=10).close()  # noqa: S310
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return
        except OSError:
            pass
        else:
            return
        assert time.monotonic() < deadline, f"nothing answers at {url}"
        time.sleep(0.1)
