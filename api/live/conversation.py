"""The conversation with one client, one frame after the other; every refusal names the frame's id.

A frame is done as soon as it is heard; only a mark has something to wait for, and a task while it does.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

from api.access.admission import Pace
from api.http.request_ids import current
from api.live.channels import subscribe
from api.live.connection import Connection, Subscription
from api.live.frames import answer, failure
from api.live.protocol import Auth, BadFrame, ClientFrame, MarkRequest, Subscribe, Unsubscribe, client_frame
from api.marks import mark
from api.problems import Problem
from topics.catalogue import NOTICES

if TYPE_CHECKING:
    from api.gateway import Gateway

log = logging.getLogger(__name__)
BAD_FRAMES = 20
MOST_WAITING = 16  # frames of one client that were read and not begun
_CLOSE = {401: 4401, 429: 4429}  # by a problem's status, where something has to be done before coming back
LONGEST_S = 30 * 86_400.0
Marking = Callable[[], Awaitable[None]]


class Conversation:
    """What is said on one connection."""

    __slots__ = ("_bad_frames", "_connection", "_gateway", "_pace", "_task", "_waiting")

    def __init__(self, gateway: Gateway, connection: Connection) -> None:
        self._gateway, self._connection = gateway, connection
        self._bad_frames = 0
        self._waiting: deque[str] | None = None
        self._task: asyncio.Task[None] | None = None
        limits, now = gateway.settings.limits, asyncio.get_running_loop().time()
        self._pace = Pace(limits.commands_per_second, limits.command_burst, now)
        connection.expires(now + limits.auth, "not authenticated in time")

    def end(self) -> None:
        """Nothing of it stays behind."""
        if self._connection.identity is not None:
            self._gateway.admission.release(self._connection.identity.user)
        if self._task is not None:
            self._task.cancel()

    def begin(self, token: str | None) -> None:
        """With the token of the handshake, if there was one."""
        if token is not None:
            try:
                self._authenticate(token)
            except Problem as problem:
                self._connection.close(_CLOSE.get(problem.status, 4503), problem.detail[:100])

    def hear(self, text: str) -> None:
        """A message of the client. What comes faster than it is done is not read."""
        if self._waiting is not None:
            self._waiting.append(text)
            self._connection.pause_reading(pause=len(self._waiting) >= MOST_WAITING)
            return
        named = current.set(self._connection.id)  # for all that is logged meanwhile, by what begins here, too
        marking = self._frame(text)
        if marking is not None:
            self._waiting = deque()
            self._task = asyncio.create_task(self._go_on(self._waiting, marking))
        current.reset(named)

    async def _go_on(self, waiting: deque[str], marking: Marking | None) -> None:
        while True:
            if marking is not None:
                await marking()
            if not waiting or not self._connection.open:
                break
            marking = self._frame(waiting.popleft())
        self._waiting = self._task = None
        self._connection.pause_reading(pause=False)

    def _frame(self, text: str) -> Marking | None:
        """What is still to be waited for."""
        try:
            frame = client_frame(text)
        except BadFrame as bad:
            self._bad_frames += 1
            self._connection.write(failure(bad.request_id, bad.problem.frame()))
            if self._bad_frames >= BAD_FRAMES:
                self._connection.close(4400, "too many frames that can't be understood")
            return None
        try:
            self._keep_pace()
            return self._do(frame)
        except Exception as error:  # noqa: BLE001 - told to the client, and logged
            self._failed(frame, error)
            return None

    def _do(self, frame: ClientFrame) -> Marking | None:
        request, connection = frame.request, self._connection
        if isinstance(request, Auth):
            self._authenticate(request.token)
            connection.write(answer(frame.id, user=connection.identity.user if connection.identity else None))
            return None
        if connection.identity is None:
            raise Problem("unauthorized", "Authenticate first.")
        if isinstance(request, MarkRequest):
            return partial(self._mark, frame, connection.identity.user, request)
        if isinstance(request, Subscribe):
            task = subscribe(self._gateway, connection, frame.id, request)
            begun = connection.subscriptions[request.channel]
            task.add_done_callback(lambda done: self._subscribed(frame.id, request.channel, begun, done))
        elif isinstance(request, Unsubscribe):
            connection.unwatch(request.channel)
            connection.write(answer(frame.id, channel=request.channel))
        else:
            connection.write(answer(frame.id))
        return None

    def _failed(self, frame: ClientFrame, error: Exception) -> None:
        if not isinstance(error, Problem):
            log.error("request failed frame=%s", type(frame.request).__name__, exc_info=error)
            error = Problem("internal")
        self._refuse(frame.id, error)

    def _keep_pace(self) -> None:
        if self._pace.allows(asyncio.get_running_loop().time()):
            return
        if self._pace.overdrawn:
            self._connection.close(4429, "commands keep coming too fast")
        limit = self._gateway.settings.limits.commands_per_second
        detail = f"At most {limit:g} commands a second on one connection."
        raise Problem("rate_limited", detail, limit="commands_per_second", value=limit)

    async def _mark(self, frame: ClientFrame, user: str, request: MarkRequest) -> None:
        try:
            marked = await mark(self._gateway, user, request)
            position = self._gateway.live.token(NOTICES, {marked.partition: marked.offset + 1})
        except Exception as error:  # noqa: BLE001 - told to the client, and logged
            self._failed(frame, error)
            return
        done = {"done": True} if marked.done else {}
        self._connection.write(answer(frame.id, cmd=request.cmd, position=position, **done))

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
        left = min(max(0.0, identity.expires_at - time.time()), LONGEST_S)
        self._connection.expires(asyncio.get_running_loop().time() + left, "the token has expired")

    def _subscribed(self, request_id: int | str, channel: str, begun: Subscription, task: asyncio.Task[None]) -> None:
        """A subscription that could not be begun is told so, and forgotten."""
        if task.cancelled():
            if not begun.answered:
                self._refuse(request_id, Problem("unsubscribed"))
            return
        if (error := task.exception()) is None:
            return
        broken_off = begun.answered and self._connection.subscriptions.get(channel) is begun
        if self._connection.subscriptions.get(channel) is begun:
            self._connection.unwatch(channel)
        lost = isinstance(error, Problem) and error.code == "position_lost"
        if broken_off and not lost:  # half an answer can't be taken back: the client comes again with its last position
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
