"""The demo in the process of `tidings up`: a thread that emits this machine once a second, and the hooks of the page.

It speaks to the gateway as any backend would, over HTTP with a token of its own.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from typing import Any
from urllib.parse import quote

from sender.sink import SmtpSink
from tidings.demo.hooks import Hooks
from tidings.demo.host import ENTITY_TYPE, Host, host_id
from tidings.demo.seed import Seed
from tidings.gateway_client import GatewayClient, Refused, Unreachable
from tidings.installation import Installation

EVERY_S = 1.0
log = logging.getLogger(__name__)
STOP_S = 2.0


class Demo:
    """`sink`: whose mail the page shows, if any. With `emit` false only the mail is shown."""

    def __init__(self, url: str, token: str, sink: SmtpSink | None, *, emit: bool, installation: Installation) -> None:
        self._client, self._sink, self._emit = GatewayClient(url, token, timeout=5), sink, emit
        self._seed = Seed(installation, host_id())
        self._hooks = Hooks(({"mail": self._mail} if sink else {}) | ({"stress": self._stress} if emit else {}))
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo", daemon=True)
        self._busy: subprocess.Popen[bytes] | None = None

    async def listen(self) -> str:
        """Answer the page; the address for the gateway."""
        return await self._hooks.start()

    def start(self) -> None:
        """Emit from now on."""
        if self._emit:
            self._thread.start()

    async def stop(self) -> None:
        """Say nothing more."""
        self._stopping.set()
        await self._hooks.stop()
        if self._busy is not None:
            self._busy.kill()
        if self._thread.is_alive():
            await asyncio.get_running_loop().run_in_executor(None, self._thread.join, STOP_S)

    def _run(self) -> None:
        host = Host()
        while not self._stopping.is_set():
            try:
                self._seed.sow(self._client)
                self._client.call("PUT", f"/v1/entities/{ENTITY_TYPE}/{quote(host_id())}", host.sample())
            except (Refused, Unreachable) as reason:
                # The gateway is starting again, or behind: the next second is another chance.
                log.info("the demo waits for the gateway reason=%r", str(reason))
            self._stopping.wait(EVERY_S)

    async def _mail(self) -> Any:
        return self._sink.mails() if self._sink else []

    async def _stress(self) -> Any:
        if self._busy is None or self._busy.poll() is not None:
            self._busy = subprocess.Popen([sys.executable, "-m", "tidings.demo.stress"], stdin=subprocess.DEVNULL)  # noqa: ASYNC220 - returns at once
        return {}
