"""An SMTP server that takes every mail and keeps the last ones in memory, so that a first look at Tidings needs no mail
account.

It listens on loopback and passes nothing on.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from datetime import UTC, datetime
from email import message_from_bytes
from email.policy import default
from typing import Any, cast

from aiosmtpd import smtp

KEPT = 200


class SmtpSink:
    """`start`, then `url` for the sender and `mails()` for the page."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host, self.port = host, port
        self._mails: deque[dict[str, str]] = deque(maxlen=KEPT)
        self._number = itertools.count(1)
        self._server: asyncio.Server | None = None
        self._open: set[smtp.SMTP] = set()

    @property
    def url(self) -> str:
        """What TIDINGS_SMTP would be for this server."""
        return f"smtp://{self.host}:{self.port}?starttls=no"

    async def start(self) -> None:
        """Listen. OSError where the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connection, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Close the port and its connections."""
        if self._server is None:
            return
        self._server.close()
        for connection in self._open:
            if connection.transport is not None:
                connection.transport.close()
        await self._server.wait_closed()
        self._server = None

    def mails(self) -> list[dict[str, str]]:
        """The last mails, oldest first: id, to, subject, text, at (RFC 3339), message_id."""
        return list(self._mails)

    async def handle_DATA(self, server: smtp.SMTP, session: smtp.Session, envelope: smtp.Envelope) -> str:  # noqa: N802, ARG002 - the library's names
        """The hook of aiosmtpd: one mail has come in."""
        mail = message_from_bytes(cast("bytes", envelope.content or b""), policy=default)
        body = mail.get_body(("plain",))
        self._mails.append(
            {
                "id": str(next(self._number)),
                "to": ", ".join(envelope.rcpt_tos),
                "subject": str(mail["subject"] or ""),
                "text": str(body.get_content()) if body else "",
                "at": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "message_id": str(mail["message-id"] or ""),
            }
        )
        return "250 OK kept in memory"

    def _connection(self) -> smtp.SMTP:
        return _Server(self, self._open)


class _Server(smtp.SMTP):
    """One connection; the sink closes those that are open when it stops."""

    def __init__(self, handler: Any, open_: set[smtp.SMTP]) -> None:
        super().__init__(
            handler, hostname="localhost", ident="Tidings sink", enable_SMTPUTF8=True, loop=asyncio.get_running_loop()
        )
        self._all = open_

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._all.add(self)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._all.discard(self)
        super().connection_lost(error)
