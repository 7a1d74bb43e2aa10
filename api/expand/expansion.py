"""Entities as backends answer them, for pushes and snapshots that ask for it: one question at a time for one thing,
answers kept for a while, so many questions to a backend and no more, and none to one that keeps failing.

Who asks with a token of their own shares neither question nor answer with anybody else's token.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import orjson

from api.expand.backends import Backend, BadId
from api.expand.circuit import Circuit
from api.expand.client import BackendClient, Unanswered
from api.live.protocol import Expand
from api.metrics import Metrics
from api.problems import Problem

log = logging.getLogger(__name__)


def _error(code: str, message: str) -> str:
    return f'"expand_error":{orjson.dumps({"code": code, "message": message}).decode()}'


SUPERSEDED = _error("superseded", "It was deleted or left the filter meanwhile, as the next event says.")


class Version(NamedTuple):
    """Which version of which entity: an entity has one record at a place of the log."""

    entity_type: str
    entity_id: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class Expansion:
    """What one subscriber gets: `token` is null where the backend is asked in the service's name."""

    source: Source
    path: str
    token: Callable[[], str] | None

    @property
    def name(self) -> str | None:
        """Those with equal names may share what is fetched; null: nobody may."""
        return f"{self.source.name} {self.path}" if self.token is None else None

    @property
    def ahead(self) -> int:
        """How many answers one lane may have under way, or waiting for their turn."""
        return self.source.backend.concurrency

    async def members(self, version: Version) -> str:
        """`"entity":…`, or `"expand_error":{…}`, as JSON text."""
        return await self.source.members(self.path, version, self.token() if self.token else None)


class Expander:
    """All backends that the settings name."""

    def __init__(self, backends: Mapping[str, Backend], metrics: Metrics) -> None:
        self._sources = {name: Source(name, backend, metrics) for name, backend in backends.items()}

    def expansion(self, asked: Expand, token: Callable[[], str]) -> Expansion:
        """What a subscribe asks for; `token` gives the subscriber's own. Problem `bad_expand`."""
        source = self._sources.get(asked.backend)
        if source is None:
            raise Problem("bad_expand", f"There is no backend {asked.backend!r} here.")
        if asked.path not in source.backend.paths:
            raise Problem("bad_expand", f"The backend {asked.backend!r} offers no {asked.path!r}.")
        return Expansion(source, asked.path, token if source.backend.auth == "subscriber" else None)

    async def stop(self) -> None:
        """Break off what is asked, close every connection."""
        for source in self._sources.values():
            await source.stop()


class Source:
    """One backend with all that is known and asked of it."""

    def __init__(self, name: str, backend: Backend, metrics: Metrics) -> None:
        self.name, self.backend, self._metrics = name, backend, metrics
        self._client = BackendClient(backend)
        self._circuit = Circuit()
        self._free = asyncio.Semaphore(backend.concurrency)
        self._flights: dict[tuple[object, ...], asyncio.Task[str]] = {}
        self._answers = Answers(backend.cache, backend.cache_time)

    async def members(self, path: str, version: Version, token: str | None) -> str:
        """`"entity":…`, or `"expand_error":{…}`: asked once for all who want the same at the same time."""
        key = (path, version, token)
        if (known := self._answers.get(key, time.monotonic())) is not None:
            return known
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = asyncio.create_task(self._fly(key, path, version, token))
            flight.add_done_callback(lambda _: self._flights.pop(key))
        return await asyncio.shield(flight)  # one who goes away takes it from nobody else

    async def stop(self) -> None:
        """Ask no more."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)
        self._client.close()

    async def _fly(self, key: tuple[object, ...], path: str, version: Version, token: str | None) -> str:
        try:
            target = self.backend.target(path, version.entity_type, version.entity_id)
            async with self._free:
                members = f'"entity":{await self._ask(target, token)}'
        except BadId as error:
            return _error("bad_path", str(error))
        except Unanswered as error:
            return _error(error.code, error.message)
        self._answers.put(key, members, time.monotonic())
        return members

    async def _ask(self, target: str, token: str | None) -> str:
        began = time.monotonic()
        if not self._circuit.admits(began):
            self._metrics.expand_fetches.labels(self.name, "circuit_open").inc()
            raise Unanswered("circuit_open", "The backend keeps failing and is left alone for a moment.")
        service = self.backend.token
        outcome = "broken_off"
        try:
            text = await self._client.get(target, token or (service.get_secret_value() if service else None))
        except Unanswered as error:
            outcome = error.code
            if not error.sick:
                self._circuit.succeeded()
            elif self._circuit.failed(time.monotonic()):
                log.warning("a backend is left alone backend=%s error=%s", self.name, error.code)
            raise
        else:
            outcome = "ok"
            self._circuit.succeeded()
            return text
        finally:
            self._metrics.expand_fetches.labels(self.name, outcome).inc()
            self._metrics.expand_seconds.labels(self.name).observe(time.monotonic() - began)
            self._metrics.expand_open.labels(self.name).set(self._circuit.open)


class Answers:
    """The newest answers, at most `most` bytes of them, each for `seconds`."""

    def __init__(self, most: int, seconds: float) -> None:
        self._most, self._seconds = most, seconds
        self._kept: OrderedDict[tuple[object, ...], tuple[str, float]] = OrderedDict()
        self.bytes = 0

    def get(self, key: tuple[object, ...], now: float) -> str | None:
        """What was answered not too long ago."""
        found = self._kept.get(key)
        if found is None:
            return None
        if found[1] <= now:
            self._drop(key)
            return None
        self._kept.move_to_end(key)
        return found[0]

    def put(self, key: tuple[object, ...], text: str, now: float) -> None:
        """Keep it, and let go of what was not asked for the longest time."""
        self._drop(key)
        self._kept[key] = text, now + self._seconds
        self.bytes += _size(text)
        while self.bytes > self._most:
            self._drop(next(iter(self._kept)))

    def _drop(self, key: tuple[object, ...]) -> None:
        if (found := self._kept.pop(key, None)) is not None:
            self.bytes -= _size(found[0])


def _size(text: str) -> int:
    """Bytes at most: keys, objects and the token that one may hold, and 4 for a character beyond ASCII."""
    return 1_024 + len(text) * (1 if text.isascii() else 4)
