"""`tidings up`: everything on this machine, from one process that starts the others, keeps them running, and stops
them in order.

Nothing here holds state that matters: the log in DIR/kafka is the truth, so that kill -9 at any moment and a new
start are always right. Whatever keeps it from starting is told in one line.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

from sender.sink import SmtpSink
from tidings.broker_keeper import BrokerKeeper
from tidings.child import Child
from tidings.daemon_thread import in_daemon_thread
from tidings.demo.host import ENTITY_TYPE
from tidings.demo.seed import USER
from tidings.demo.service import Demo
from tidings.gateway_client import GatewayClient, Refused, Unreachable
from tidings.installation import Installation, Running
from tidings.settings import KafkaSettings, UpSettings, read
from tidings.tokens import DEMO_TTL_S, service_token, sign_in_token
from tidings.up_roles import environment, free_ports

# What each may take to stop; all of it together, and the demo's two, is less than the 20 s that `up` promises.
STOPS = (("wrapper", 3.0), ("gateway", 4.0), ("worker", 4.0), ("sender", 3.0))
BROKER_STOP_S = 3.0
LEFT_BEHIND_S = 3.0
READY_S = 90.0
ALERTS = Path(__file__).resolve().parent.parent / "examples" / "alerts.toml"
DEMO_SCOPES = (f"entities:write:{ENTITY_TYPE}", "recipients", "configs", "notices:write")


class CannotStart(Exception):
    """Why `up` can't start, in one line."""


class Up:
    """One run of everything. `say` is for the URL, `tell` for what goes wrong."""

    def __init__(
        self,
        settings: UpSettings,
        installation: Installation,
        *,
        demo: bool,
        say: Callable[[str], None],
        tell: Callable[[str], None],
    ) -> None:
        self._settings, self._installation, self._with_demo, self._say, self._tell = (
            settings,
            installation,
            demo,
            say,
            tell,
        )
        self._secret = settings.secret.get_secret_value() if settings.secret else installation.secret() or ""
        self._running = Running(os.getpid(), settings.kafka or "", "", list(settings.entity_types), settings.partitions)
        if demo and ENTITY_TYPE not in settings.entity_types:
            self._running.entity_types.append(ENTITY_TYPE)
        self._broker = (
            None if settings.kafka else BrokerKeeper(installation.path / "kafka", tell=tell, changed=self._note)
        )
        self._children: dict[str, Child] = {}
        self._sink: SmtpSink | None = None if settings.smtp else SmtpSink()
        self._demo: Demo | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Until SIGINT, SIGTERM or SIGHUP. CannotStart, BrokerError, Hopeless, OSError."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        stopped = self._task(self._stop.wait())
        self._task(self._start())
        try:
            while not stopped.done():
                done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
                self._tasks -= done
                for task in done:
                    task.result()  # raises what ended it
        finally:
            await self._end()

    # ---- the start
    async def _start(self) -> None:
        port = self._settings.port or free_ports(1)[0]
        await self._port_is_free(port)
        (self._installation.path / "logs").mkdir(exist_ok=True)
        if self._sink:
            await self._sink.start()
        if self._broker:
            await self._broker.launch()
            self._running.bootstrap = self._broker.bootstrap
        self._running.url = f"http://{_shown(self._settings.host)}:{port}"
        roles = ("worker", "gateway", "sender", "wrapper")
        self._running.metrics = dict(zip(roles, free_ports(len(roles)), strict=True))
        token = service_token(self._secret, "demo", DEMO_SCOPES, DEMO_TTL_S, **self._settings.claims)
        self._demo = Demo(self._running.url, token, self._sink, emit=self._with_demo, installation=self._installation)
        given = await self._environment(self._demo, port)
        # They load their programs while the broker starts, and wait until the log is there.
        for role in ("gateway", "worker"):
            self._begin(role, given)
        if self._broker:
            await self._broker.ready()
            self._task(self._broker.keep())
        await in_daemon_thread(self._provision)
        self._begin("sender", given)
        if self._with_demo:
            self._begin("wrapper", given, str(ALERTS))
        await self._until_ready()
        self._demo.start()
        self._say(f"{self._running.url}/#token={sign_in_token(self._secret, USER, **self._settings.claims)}")
        self._say(f"Ctrl-C stops everything; the data stays in {self._installation.path}")
        for child in self._children.values():
            child.steady = True

    async def _port_is_free(self, port: int) -> None:
        """The children of a run that was killed may hold it a moment longer."""
        deadline = time.monotonic() + (LEFT_BEHIND_S if self._installation.left_behind() else 0)
        while error := _refusal(self._settings.host, port):
            if error.errno != errno.EADDRINUSE:
                raise CannotStart(
                    f"can't listen on {self._settings.host}:{port} ({error.strerror}): try another --host"
                )
            if time.monotonic() >= deadline:
                raise CannotStart(f"port {port} is taken by another program: stop that one, or give another --port")
            await asyncio.sleep(0.05)

    async def _environment(self, demo: Demo, port: int) -> dict[str, str]:
        settings = self._settings
        smtp = settings.smtp.get_secret_value() if settings.smtp else self._sink.url if self._sink else ""
        database = settings.database.get_secret_value() if settings.database else self._installation.database
        address = await demo.listen()
        state_dir = str(self._installation.path / "wrapper")
        return {"TIDINGS_OPERATORS": USER, "TIDINGS_STATE_DIR": state_dir} | environment(
            self._running,
            database=database,
            secret=self._secret,
            smtp=smtp,
            demo=address,
            host=settings.host,
            port=port,
        )

    def _provision(self) -> None:
        from topics import provision  # noqa: PLC0415 - takes 0.3 s, which the broker needs for its start anyway

        running = self._running
        settings = read(
            KafkaSettings,
            kafka=running.bootstrap,
            entity_types=tuple(running.entity_types),
            partitions=running.partitions,
        )
        provision.apply(settings.cluster, settings.catalogue, replication=settings.replication)

    async def _until_ready(self) -> None:
        """The page works from here on: the gateway has caught up, and the worker's rows are of this log."""
        client, deadline = GatewayClient(self._running.url, timeout=5), time.monotonic() + READY_S
        while True:
            try:
                await in_daemon_thread(lambda: client.call("GET", "/readyz"))
            except Unreachable:
                reason = "it does not answer"
            except Refused as refused:
                reason = f"it waits for {', '.join(refused.problem.get('waiting_for', []))}"
            else:
                client.close()
                return
            if time.monotonic() > deadline:
                logs = self._installation.path / "logs"
                raise CannotStart(f"the gateway was not ready within {READY_S:g} s ({reason}): see {logs}")
            await asyncio.sleep(0.05)

    def _begin(self, role: str, given: dict[str, str], *arguments: str) -> None:
        own = dict(given)
        if role in self._running.metrics:
            own["TIDINGS_METRICS_PORT"] = str(self._running.metrics[role])
        child = Child(role, arguments, own, logs=self._installation.path / "logs", tell=self._tell, changed=self._note)
        self._children[role] = child
        self._task(child.keep())

    def _note(self) -> None:
        """Whoever looks for what runs here finds it in the directory; on a full disk it is not worth stopping for."""
        pids = {role: child.pid for role, child in self._children.items()}
        pids["broker"] = self._broker.pid if self._broker else None
        self._running.pids = {role: pid for role, pid in pids.items() if pid is not None}
        with suppress(OSError):
            self._installation.tell(self._running)

    # ---- the end
    def _signalled(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            return
        for child in self._children.values():  # asked twice: somebody is in a hurry
            child.kill()
        if self._broker:
            self._broker.kill()

    async def _end(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._demo:
            await self._demo.stop()
        for role, seconds in STOPS:
            if role in self._children:
                await self._children[role].stop(seconds)
        if self._broker:
            await self._broker.stop(BROKER_STOP_S)
        if self._sink:
            await self._sink.stop()
        with suppress(OSError):
            self._installation.forget()

    def _task(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task


def _shown(host: str) -> str:
    """How a browser on this machine reaches what listens on `host`."""
    if host in ("0.0.0.0", "::"):  # noqa: S104 - all interfaces, the loopback one among them
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


def _refusal(host: str, port: int) -> OSError | None:
    """Why nobody could listen there now; null if one could."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        return error
    return None
