"""Serves the gateway with uvicorn, and ends it in order: clients are sent away spread over time, open requests are
let finish.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import uvicorn

from api.app import create_app
from api.gateway import Gateway
from api.http.protocol import BoundedHttpProtocol
from api.live.websocket import Door, WebSocketConnection
from api.notices.short_cut import ShortCut
from api.settings import GatewaySettings

log = logging.getLogger(__name__)
UNREAD_MS = 60_000  # whoever takes nothing of an answer for so long has gone, or only holds our memory


class Server:
    """One gateway on one socket. OSError if the address is taken; ValueError for settings that can't be right."""

    def __init__(self, settings: GatewaySettings) -> None:
        app = create_app(settings)
        self.gateway: Gateway = app.state.gateway
        self._socket = _bound(settings.host, settings.port, shared=settings.reuse_port)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; connections have it from the socket that listens
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MS)
        self.port: int = self._socket.getsockname()[1]
        http: Any = partial(BoundedHttpProtocol, door=Door(self.gateway), short_cut=ShortCut(self.gateway))
        config = uvicorn.Config(
            app,
            http=http,
            ws=WebSocketConnection,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            timeout_graceful_shutdown=max(1, round(settings.shutdown)),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
        )
        # It warns of every request that is none.
        logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
        self._server = _WithoutSignals(config)

    async def serve(self, started: Callable[[int], None] | None = None) -> None:
        """Serve until `stop`; `started` is called with the port once requests are taken."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        up = asyncio.create_task(self._server.up.wait())
        await asyncio.wait({serving, up}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if started is not None and not serving.done():
            started(self.port)
        await serving

    async def stop(self) -> None:
        """End in order; `serve` returns when it is done. New connections go elsewhere from the first moment on."""
        self._server.stop_listening()
        await self.gateway.drain()
        self._server.should_exit = True


class _WithoutSignals(uvicorn.Server):
    """Whoever runs the process takes the signals. `up` is set once requests are taken."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.servers: list[asyncio.base_events.Server] = []  # of the time before it is up

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and says so."""
        await super().startup(sockets)
        if not self.should_exit:
            self.up.set()

    def stop_listening(self) -> None:
        """Whoever comes now comes to another gateway on this port, or to nobody."""
        for server in self.servers:
            server.close()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, without catching signals."""
        await self._serve(sockets)


async def serve(settings: GatewaySettings, started: Callable[[int], None] | None = None) -> None:
    """A gateway until SIGTERM or SIGINT, or until this task is cancelled."""
    server = Server(settings)
    stopping: list[asyncio.Task[None]] = []

    def stop() -> None:
        if not stopping:
            stopping.append(asyncio.create_task(server.stop()))

    loop = asyncio.get_running_loop()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signal_number, stop)
    await server.serve(started)


def run(settings: GatewaySettings, started: Callable[[int], None] | None = None) -> None:
    """A gateway in this process, until a signal. OSError if the port is taken; ValueError for wrong settings."""
    import uvloop  # noqa: PLC0415 - only a process of its own takes another loop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, started))


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    """A listening socket; `shared`: other gateways may listen on the port too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # named, or asyncio leaves Nagle on: 40 ms
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        found.bind((host, port))
        if not shared:  # a port taken twice is told at once; where it is shared, only who can answer listens
            found.listen(2048)
    except OSError:
        found.close()
        raise
    found.setblocking(False)
    found.set_inheritable(False)
    return found
