"""The broker's data directory: whose it is, which cluster and port it belongs to, and that only one broker uses it.

Two brokers on one directory hang each other, and Kafka starts on a log of another cluster without a word; so the
directory has a lock of ours, which the JVM inherits, and a file that says which cluster its log must be.
"""

import contextlib
import fcntl
import json
import os
import time
import uuid
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from pathlib import Path

from broker.errors import BrokerError

IDENTITY = "broker.json"
LOCK = "lock"
LOG = "log"
PROPERTIES = "server.properties"


@dataclass(frozen=True, slots=True)
class Identity:
    """What a data directory remembers between starts: its cluster, and the port its clients know (0: none yet)."""

    cluster_id: str
    port: int


def random_cluster_id() -> str:
    """A cluster id as Kafka makes them: 16 random bytes in URL-safe base64, none that a command line takes for an
    option.
    """
    while True:
        text = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


def lock(directory: Path, patience: float = 5.0) -> int:
    """Takes the directory for this process and returns the file descriptor to hand to the JVM.

    A lock whose taker has been killed belongs to a JVM on its way out: that is waited for, `patience` seconds at most.
    """
    descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            owner = os.pread(descriptor, 20, 0).decode()
            if _lives(owner) or time.monotonic() > deadline:
                raise BrokerError(f"another broker already runs on {directory} (process {owner}): stop that one first")
            time.sleep(0.05)
    except BaseException:
        os.close(descriptor)
        raise


def _lives(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


def identify(directory: Path) -> Identity:
    """Reads whose directory this is; an empty one is made ours. Refuses a directory that holds anything else."""
    path = directory / IDENTITY
    if not path.exists():
        strangers = sorted(entry.name for entry in directory.iterdir() if entry.name not in (LOCK, IDENTITY + ".new"))
        if strangers:
            raise _foreign(directory, f"it holds {strangers[0]!r} but no {IDENTITY}")
        identity = Identity(random_cluster_id(), 0)
        remember(directory, identity)
        return identity
    try:
        found = json.loads(path.read_text())
        identity = Identity(str(found["cluster_id"]), int(found["port"]))
    except (ValueError, KeyError, TypeError):
        raise _foreign(directory, f"its {IDENTITY} is not one of ours") from None
    formatted = formatted_as(directory)
    if formatted not in (None, identity.cluster_id):
        raise _foreign(directory, f"its log is of cluster {formatted}, not of {identity.cluster_id}")
    return identity


def _foreign(directory: Path, why: str) -> BrokerError:
    return BrokerError(f"{directory} is not this broker's data directory ({why}): choose an empty or a new one")


def remember(directory: Path, identity: Identity) -> None:
    """Writes the identity whole or not at all: a kill in between leaves the old one."""
    new = directory / (IDENTITY + ".new")
    new.write_text(json.dumps({"cluster_id": identity.cluster_id, "port": identity.port}) + "\n")
    new.replace(directory / IDENTITY)


def formatted_as(directory: Path) -> str | None:
    """The cluster id that Kafka wrote into its log directory, or None before it was formatted."""
    try:
        text = (directory / LOG / "meta.properties").read_text()
    except FileNotFoundError:
        return None
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return settings.get("cluster.id", "")


def write_properties(directory: Path, *, port: int, controller_port: int) -> None:
    """Adds this start's addresses to the fixed settings. Both are on the loopback interface only.

    The voter is a static one on purpose: its port may then be another at each start.
    """
    fixed = (Path(__file__).parent / PROPERTIES).read_text()
    listener = f"PLAINTEXT://127.0.0.1:{port}"
    (directory / PROPERTIES).write_text(
        f"{fixed}\nlisteners={listener},CONTROLLER://127.0.0.1:{controller_port}\n"
        f"advertised.listeners={listener}\ncontroller.quorum.voters=1@127.0.0.1:{controller_port}\n"
    )
