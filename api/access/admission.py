"""Who may come in and how fast they may talk: live connections in all, of one address, of one user; commands of one
connection.

Every refusal names its limit and the value, so that whoever is refused knows what to ask for.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from functools import lru_cache

from api.problems import Problem
from api.settings import Limits


class Admission:
    """Counts the live connections of one process; used in its event loop only."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._all = limits, 0
        self._addresses: Counter[str] = Counter()
        self._users: Counter[str] = Counter()

    def enter(self, client: tuple[str, int] | None) -> str:
        """A connection from there; what to `leave` with. Problem `too_many_connections`."""
        address = network(client[0]) if client else ""
        self._check("connections", self._all, "connections to one gateway")
        self._check("connections_per_address", self._addresses[address], "connections from one address")
        self._all += 1
        self._addresses[address] += 1
        return address

    def leave(self, address: str) -> None:
        """It is gone."""
        self._all -= 1
        _less(self._addresses, address)

    def claim(self, user: str) -> None:
        """One of these connections belongs to `user`, until `release`. Problem `too_many_connections`."""
        self._check("connections_per_user", self._users[user], "connections of one user")
        self._users[user] += 1

    def release(self, user: str) -> None:
        """It is gone."""
        _less(self._users, user)

    def _check(self, name: str, count: int, what: str) -> None:
        limit: int = getattr(self._limits, name)
        if count >= limit:
            raise Problem("too_many_connections", f"At most {limit} {what}.", limit=name, value=limit)


class Pace:
    """A bucket of `burst` tokens that fills with `rate` a second; a refused command takes one, too."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, rate: float, burst: int, now: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, float(burst), now

    def allows(self, now: float) -> bool:
        """One more, at `now` (s)."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate) - 1
        self._at = now
        return self._left >= 0

    @property
    def overdrawn(self) -> bool:
        """Whether as many were refused as are allowed at once: it goes on and on."""
        return self._left < -self._burst


@lru_cache(maxsize=4_096)  # a proxy's clients, or one network's, come again and again
def network(client: str) -> str:
    """What counts as one address: whoever has an IPv6 address has a whole /64 of them."""
    try:
        found = ipaddress.ip_address(client)
    except ValueError:
        return client
    if isinstance(found, ipaddress.IPv4Address):
        return client
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))


def _less(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
