"""The one error of this room: it says in one line, for a person, what is wrong with the broker and what to do."""

import errno
from pathlib import Path


class BrokerError(Exception):
    """The embedded broker can't start or has died; the text is one line that names the cause and the cure."""


def disk_full(path: Path, free: int) -> BrokerError:
    """The same words for a disk found full before the start, at a write, or by Kafka itself (`free` in bytes)."""
    return BrokerError(f"the disk of {path} is full ({free // 1024**2} MiB free): make room there and start again")


def unusable(path: Path, error: OSError, free: int) -> BrokerError:
    """What the operating system refused about the data directory, in our words (`free` in bytes)."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return disk_full(path, free)
    return BrokerError(
        f"{path} can't be used for the broker's data: {error.strerror or error}; choose another directory"
    )
