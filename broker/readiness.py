"""Asks a port which Kafka cluster answers there, and whether a topic could be made now.

A TCP connection proves nothing: it may reach somebody else's program. The answer to Kafka's Metadata request (version
2, which every broker since 0.10.1 speaks) names the cluster and the brokers that are in service; reading it takes a
few lines and no client library.
"""

import socket
import struct
from dataclasses import dataclass

METADATA, VERSION = 3, 2


@dataclass(frozen=True, slots=True)
class Cluster:
    """Who answered: the cluster's id, and the ports of the brokers in service (a fenced broker is not among them)."""

    cluster_id: str
    ports: frozenset[int]


def ask(port: int, timeout: float) -> Cluster | None:
    """The cluster that answers on this port of the loopback interface, or None while nobody answers as Kafka does."""
    # api key, version, correlation id, client id "tidings", no topics
    request = struct.pack(">hhih7si", METADATA, VERSION, 1, 7, b"tidings", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            with connection.makefile("rb") as stream:
                (size,) = struct.unpack(">i", stream.read(4))
                return _read(stream.read(size)) if 0 < size < 65536 else None
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _read(answer: bytes) -> Cluster:
    at = 4  # after the correlation id

    def take(layout: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from(layout, answer, at)
        at += struct.calcsize(layout)
        return int(value)

    def text() -> str:
        nonlocal at
        length = max(take(">h"), 0)  # -1 is null
        value = answer[at : at + length].decode()
        at += length
        return value

    ports = set()
    for _ in range(take(">i")):
        take(">i")  # node id
        text()  # host
        ports.add(take(">i"))
        text()  # rack
    return Cluster(text(), frozenset(ports))


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback interface now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
