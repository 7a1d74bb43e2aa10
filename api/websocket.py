"""`/v1/ws`: the conversation with one client, one frame after the other; every refusal names the frame's id."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.websockets import WebSocket, WebSocketDisconnect

from api.admission import Pace
from api.channels import subscribe
from api.connection import EXTENSION, Connection, DirectWebSocketProtocol
from api.frames import answer, failure
from api.marks import mark
from api.problems import Problem
from api.protocol import Auth, BadFrame, ClientFrame, MarkRequest, Subscribe, Unsubscribe, client_frame
from topics.catalogue import NOTICES

if TYPE_CHECKING:
    from api.gateway import Gateway

log = logging.getLogger(__name__)
SUBPROTOCOL = "tidings.v1"
TOKEN_PREFIX = "tidings.token."  # noqa: S105 - a name, not a secret
BAD_FRAMES = 20
_CLOSE = {401: 4401, 429: 4429}  # by a problem's status, where something has to be done before coming back


async def websocket(socket: WebSocket) -> None:
    """The endpoint."""
    gateway: Gateway = socket.app.state.gateway
    try:
        if gateway.draining:
            raise Problem("not_ready", "This gateway is going away.")
        if not _welcome(gateway, socket):
            raise Problem("forbidden", "Pages of this origin are not let in: TIDINGS_ORIGINS names those that are.")
        address = gateway.admission.enter(socket.scope["client"])
    except Problem as problem:
        log.info("connection refused code=%s reason=%s", problem.code, problem.detail)
        await socket.send_denial_response(problem.response())
        return
    try:
        await _converse(gateway, socket)
    finally:
        gateway.admission.leave(address)


async def _converse(gateway: Gateway, socket: WebSocket) -> None:
    """From the handshake to the end."""
    token, subprotocol = _offered(socket)
    await socket.accept(subprotocol)
    protocol: DirectWebSocketProtocol = socket.scope["extensions"][EXTENSION]
    connection = Connection(protocol, gateway.metrics, gateway.settings.limits.write_buffer)
    gateway.connections.add(connection)
    gateway.metrics.connections.inc()
    talk = Talk(gateway, socket, connection)
    reading = asyncio.create_task(talk.read(token))
    ending = asyncio.create_task(connection.closed.wait())
    try:
        await asyncio.wait({reading, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        gateway.connections.discard(connection)
        gateway.metrics.connections.dec()
        talk.end()
        for task in (reading, ending):
            task.cancel()
        await asyncio.gather(reading, ending, return_exceptions=True)
        if connection.closing is not None:
            with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it went by itself meanwhile
                await socket.close(*connection.closing)


class Talk:
    """What is said on one connection."""

    def __init__(self, gateway: Gateway, socket: WebSocket, connection: Connection) -> None:
        self._gateway, self._socket, self._connection = gateway, socket, connection
        self._bad_frames = 0
        self._expiry: asyncio.TimerHandle | None = None
        limits = gateway.settings.limits
        self._pace = Pace(limits.commands_per_second, limits.command_burst, asyncio.get_running_loop().time())

    def end(self) -> None:
        """Nothing of it stays behind."""
        self._connection.stop_all()
        if self._connection.identity is not None:
            self._gateway.admission.release(self._connection.identity.user)
        if self._expiry is not None:
            self._expiry.cancel()

    async def read(self, token: str | None) -> None:
        """Frame after frame, until the client goes or is sent away."""
        loop = asyncio.get_running_loop()
        self._expiry = loop.call_later(
            self._gateway.settings.limits.auth, self._connection.close, 4401, "not authenticated in time"
        )
        if token is not None:
            try:
                self._authenticate(token)
            except Problem as problem:
                self._connection.close(_CLOSE.get(problem.status, 4503), problem.detail[:100])
                return
        with contextlib.suppress(WebSocketDisconnect):
            while self._connection.closing is None:
                await self._frame(await self._text())

    async def _text(self) -> str:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        return message.get("text") or ""

    async def _frame(self, text: str) -> None:
        try:
            frame = client_frame(text)
        except BadFrame as bad:
            self._bad_frames += 1
            self._connection.write(failure(bad.request_id, bad.problem.frame()))
            if self._bad_frames >= BAD_FRAMES:
                self._connection.close(4400, "too many frames that can't be understood")
            return
        try:
            self._keep_pace()
            await self._do(frame)
        except Problem as problem:
            self._refuse(frame.id, problem)
        except Exception:
            log.exception("request failed frame=%s", type(frame.request).__name__)
            self._refuse(frame.id, Problem("internal"))

    async def _do(self, frame: ClientFrame) -> None:
        request, connection = frame.request, self._connection
        if isinstance(request, Auth):
            self._authenticate(request.token)
            connection.write(answer(frame.id, user=connection.identity.user if connection.identity else None))
            return
        if connection.identity is None:
            raise Problem("unauthorized", "Authenticate first.")
        if isinstance(request, Subscribe):
            task = await subscribe(self._gateway, connection, frame.id, request)
            task.add_done_callback(lambda done: self._subscribed(frame.id, request.channel, done))
        elif isinstance(request, Unsubscribe):
            subscription = connection.subscriptions.pop(request.channel, None)
            if subscription is not None:
                subscription.stop()
            connection.write(answer(frame.id, channel=request.channel))
        elif isinstance(request, MarkRequest):
            await self._mark(frame.id, connection.identity.user, request)
        else:
            connection.write(answer(frame.id))

    def _keep_pace(self) -> None:
        if self._pace.allows(asyncio.get_running_loop().time()):
            return
        if self._pace.overdrawn:
            self._connection.close(4429, "commands keep coming too fast")
        limit = self._gateway.settings.limits.commands_per_second
        detail = f"At most {limit:g} commands a second on one connection."
        raise Problem("rate_limited", detail, limit="commands_per_second", value=limit)

    async def _mark(self, request_id: int | str, user: str, request: MarkRequest) -> None:
        marked = await mark(self._gateway, user, request)
        position = self._gateway.live.token(NOTICES, {marked.partition: marked.offset + 1})
        done = {"done": True} if marked.done else {}
        self._connection.write(answer(request_id, cmd=request.cmd, position=position, **done))

    def _authenticate(self, token: str) -> None:
        identity = self._gateway.tokens.identify(token)
        mine = self._connection.identity
        if mine is not None and mine.user != identity.user:
            raise Problem("forbidden", "This connection belongs to another user; open a new one.")
        if (
            mine is not None
            and self._connection.subscriptions
            and (mine.scopes, dict(mine.filters))
            != (
                identity.scopes,
                dict(identity.filters),
            )
        ):
            identity_changed = "A token with other rights needs a new connection."
            raise Problem("forbidden", identity_changed)
        if mine is None:
            self._gateway.admission.claim(identity.user)
        self._connection.identity = identity
        if self._expiry is not None:
            self._expiry.cancel()
        left = min(max(0.0, identity.expires_at - time.time()), 30 * 86_400.0)
        self._expiry = asyncio.get_running_loop().call_later(
            left, self._connection.close, 4401, "the token has expired"
        )

    def _subscribed(self, request_id: int | str, channel: str, task: asyncio.Task[None]) -> None:
        """A subscription that could not be begun is told so, and forgotten."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        subscription = self._connection.subscriptions.get(channel)
        broken_off = subscription is not None and subscription.task is task and subscription.answered
        if subscription is not None and subscription.task is task:
            self._connection.subscriptions.pop(channel).stop()
        if broken_off:  # half an answer can't be taken back: the client comes again with its last position
            log.warning("subscription broken off channel=%s error=%s", channel.partition("/")[0], type(error).__name__)
            self._connection.close(4503, "broken off; come back")
        elif isinstance(error, Problem):
            self._refuse(request_id, error)
        else:
            log.error(
                "subscription failed channel=%s error=%s",
                channel.partition("/")[0],
                type(error).__name__,
                exc_info=error,
            )
            self._refuse(request_id, Problem("internal"))

    def _refuse(self, request_id: int | str, problem: Problem) -> None:
        self._connection.write(failure(request_id, problem.frame()))


def _welcome(gateway: Gateway, socket: WebSocket) -> bool:
    """Browsers say where a page came from: only our own origin, or one that the settings name."""
    origin = socket.headers.get("origin")
    if origin is None or origin in gateway.settings.origins:
        return True
    try:
        return urlsplit(origin).netloc == socket.headers.get("host")
    except ValueError:
        return False


def _offered(socket: WebSocket) -> tuple[str | None, str | None]:
    """The token of the handshake, and the subprotocol to accept."""
    offered: list[str] = socket.scope.get("subprotocols", [])
    by_protocol = next((p for p in offered if p.startswith(TOKEN_PREFIX)), None)
    accepted = SUBPROTOCOL if SUBPROTOCOL in offered else by_protocol
    kind, _, header = socket.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return header.strip(), accepted
    return (by_protocol.removeprefix(TOKEN_PREFIX) if by_protocol else None), accepted
