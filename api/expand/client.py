"""One question to a backend: a GET that costs no more than its settings allow, whatever the other side does.

Written on h11, because a pool that reads on after an answer's end would take stray bytes for the next subscriber's
answer, and because the address has to be looked at between resolving and connecting. No redirects, no proxies, no
cookies, no compression; a connection of which anything was odd is never used again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from urllib.parse import urlsplit

import h11
import orjson

from api.expand.backends import Backend

log = logging.getLogger(__name__)
CHUNK = 16 * 1024  # what is taken apart at once: nobody else is served meanwhile
MOST_PIECES = 10_000  # chunks of an answer; each costs some 6 µs


class Unanswered(Exception):
    """There is no entity; `code` is stable, `message` for people; `sick`: it speaks against the backend as a whole."""

    def __init__(self, code: str, message: str, *, sick: bool = False) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.sick = code, message, sick


class BackendClient:
    """Keeps connections alive; the caller bounds how many questions there are at a time."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        at = urlsplit(backend.url)
        self._host, self._netloc = at.hostname or "", at.netloc
        self._tls = ssl.create_default_context() if at.scheme == "https" else None
        self._port = at.port or (443 if self._tls else 80)
        self._idle: list[_Wire] = []

    async def get(self, target: str, token: str | None) -> str:
        """The answer, one JSON text. Unanswered."""
        limit = self._backend.timeout
        try:
            async with asyncio.timeout(limit):
                return _json(await self._ask(target, token))
        except TimeoutError as error:
            raise Unanswered("timeout", f"The backend did not answer within {limit:g} s.", sick=True) from error
        except h11.ProtocolError as error:
            raise Unanswered("bad_answer", "The backend's answer breaks HTTP.", sick=True) from error
        except (OSError, UnicodeError) as error:  # no name for a host is a UnicodeError
            raise Unanswered("unreachable", "The backend can't be reached.", sick=True) from error

    def close(self) -> None:
        """Close what rests."""
        while self._idle:
            self._idle.pop().close()

    async def _ask(self, target: str, token: str | None) -> bytes:
        headers = [("host", self._netloc), ("accept", "application/json"), ("accept-encoding", "identity")]
        if token is not None:
            if not (token.isascii() and token.isprintable()):  # it would count as the backend's failure
                raise Unanswered("forbidden", "This token can't be passed on: it has characters that no token has.")
            headers.append(("authorization", f"Bearer {token}"))
        request = h11.Request(method="GET", target=target, headers=headers)
        while self._idle:
            wire = self._idle.pop()
            if wire.wake():
                try:
                    return await self._exchange(wire, request)
                except ConnectionError:
                    if wire.heard:
                        raise
            wire.close()
        return await self._exchange(await self._connect(), request)

    async def _exchange(self, wire: _Wire, request: h11.Request) -> bytes:
        try:
            wire.send(request)
            body = bytearray()
            for _ in range(MOST_PIECES):
                event = await wire.event()
                if isinstance(event, h11.Response):
                    _check(event.status_code)
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                if len(body) > self._backend.largest:
                    message = f"The backend's answer has more than {self._backend.largest} bytes."
                    raise Unanswered("too_large", message)
            else:
                raise h11.RemoteProtocolError("an answer in crumbs")
            if wire.rest():
                self._idle.append(wire)
        except BaseException:
            wire.close()
            raise
        return bytes(body)

    async def _connect(self) -> _Wire:
        loop = asyncio.get_running_loop()
        found = [a[4][0] for a in await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)]
        for address in found:
            if not self._backend.allows(str(address)):
                log.warning("a backend's name leads to an address that is not allowed host=%s", self._host)
                raise Unanswered("unreachable", "The backend can't be reached.", sick=True)
        refused: OSError = ConnectionRefusedError("the name has no address")
        for address in found:
            try:
                reader, writer = await asyncio.open_connection(
                    str(address),
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                    limit=CHUNK,
                )
            except OSError as error:
                refused = error
            else:
                return _Wire(reader, writer)
        raise refused


class _Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT)
        self._next: asyncio.Task[bytes] | None = None  # a read that began before the question
        self._unasked: asyncio.Task[bytes] | None = None
        self.heard = False  # anything since the question was sent

    def send(self, request: h11.Request) -> None:
        self.heard = False
        self._writer.write((self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b""))

    async def event(self) -> h11.Event | type[h11.PAUSED]:
        """The next thing that it says. ConnectionError, h11.RemoteProtocolError."""
        while (event := self._http.next_event()) is h11.NEED_DATA:
            reading, self._next = self._next, None
            data = await (reading or self._reader.read(CHUNK))
            if not data and not self.heard:
                raise ConnectionResetError("it hung up without an answer")
            self.heard = True
            self._http.receive_data(data)
        return event  # type: ignore[return-value] # NEED_DATA does not leave the loop

    def rest(self) -> bool:
        """The answer is whole; whether the connection may wait for another question."""
        if self._http.trailing_data[0]:
            raise h11.RemoteProtocolError("more came than the answer")
        if self._http.their_state is not h11.DONE:
            self.close()
            return False
        self._http.start_next_cycle()
        self._unasked = asyncio.create_task(self._reader.read(CHUNK))
        self._unasked.add_done_callback(self._spoke)
        return True

    def wake(self) -> bool:
        """Whether it can be asked again: nobody has hung up, and nothing came unasked."""
        self._next, self._unasked = self._unasked, None
        return self._next is not None and not self._next.done()

    def close(self) -> None:
        """Give it up, whatever it is doing."""
        for reading in (self._next, self._unasked):
            if reading is not None:
                reading.cancel()
        self._writer.transport.abort()

    def _spoke(self, reading: asyncio.Task[bytes]) -> None:
        if reading is self._unasked:  # it hung up, or said something that nobody asked for
            self._writer.transport.abort()
        if not reading.cancelled():
            reading.exception()  # whoever awaits it is told; nobody may


def _check(status: int) -> None:
    if status in {401, 403}:
        raise Unanswered("forbidden", "The backend does not allow it.")
    if status in {404, 410}:
        raise Unanswered("not_found", "The backend does not have it.")
    if status != 200:
        raise Unanswered("failed", f"The backend answered {status}.", sick=status == 429 or status >= 500)


def _json(body: bytes) -> str:
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Unanswered("bad_answer", "The backend's answer is no JSON.") from error
    return body.decode()
