"""The directory of one `tidings up`: its lock, its secret, and the note by which other commands find what runs
there.

Everything in it survives kill -9: what is written is written whole, and the note is only believed while the lock is
held.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

LOCK = "lock"
NOTE = "up.json"
SECRET = "secret"  # noqa: S105 - a file's name
PATIENCE_S = 5.0


class InstallationError(Exception):
    """The directory can't be used; one line that says why and what to do."""


@dataclass(slots=True)
class Running:
    """What runs: how to reach it, and with which catalogue it was started."""

    pid: int
    bootstrap: str
    url: str
    entity_types: list[str]
    partitions: int
    pids: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, int] = field(default_factory=dict)


class Installation:
    """One directory, which must be new, empty, or one of ours."""

    def __init__(self, path: Path, *, patience_s: float = PATIENCE_S) -> None:
        self.path = path.absolute()
        self._patience_s = patience_s
        self._lock: int | None = None

    @property
    def database(self) -> str:
        """The URL of the SQLite database in it."""
        return f"sqlite:///{self.path / 'tidings.db'}"

    def open(self) -> None:
        """Make it ours and hold its lock until the process ends. InstallationError."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)  # notices are nobody else's business
            self._refuse_strangers()
            self._lock = self._take()
            if not (self.path / SECRET).exists():
                self.write(SECRET, secrets.token_urlsafe(48))
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            cure = "make room there and start again" if full else "choose another one with --data"
            raise InstallationError(f"{self.path} can't be used ({error.strerror}): {cure}") from error

    def close(self) -> None:
        """Let the directory go; the kernel does so too, when the process ends."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def secret(self) -> str | None:
        """What signs this installation's tokens; null where there is none yet."""
        try:
            return (self.path / SECRET).read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InstallationError(f"{self.path / SECRET} can't be read: {error.strerror}") from error

    def write(self, name: str, text: str) -> None:
        """A file for the owner's eyes only, whole or not at all. OSError."""
        new = self.path / f"{name}.new"
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.path / name)

    def tell(self, running: Running) -> None:
        """Leave the note."""
        self.write(NOTE, json.dumps(asdict(running), indent=2))

    def forget(self) -> None:
        """Take the note away, at an orderly end."""
        (self.path / NOTE).unlink(missing_ok=True)

    def left_behind(self) -> bool:
        """Whether the last run ended without order: its children may be on their way out still."""
        return (self.path / NOTE).exists()

    def running(self) -> Running | None:
        """What runs here now; null if nothing does."""
        try:
            note = Running(**json.loads((self.path / NOTE).read_text()))
            return note if self._held() else None
        except (OSError, ValueError, TypeError):
            return None

    def _held(self) -> bool:
        with (self.path / LOCK).open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False

    def _refuse_strangers(self) -> None:
        names = {entry.name for entry in self.path.iterdir()} - {LOCK, f"{SECRET}.new"}
        if names and SECRET not in names:
            raise InstallationError(
                f"{self.path} is not a data directory of Tidings (it holds {min(names)!r}): "
                "choose an empty or new one with --data"
            )

    def _take(self) -> int:
        descriptor = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + (self._patience_s if self.left_behind() else 0)
        while True:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                return descriptor
            if time.monotonic() >= deadline:
                owner = os.pread(descriptor, 20, 0).decode()
                os.close(descriptor)
                raise InstallationError(
                    f"`tidings up` already runs on {self.path} (process {owner}): stop it, or use another --data"
                )
            time.sleep(0.05)
