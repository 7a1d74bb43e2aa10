"""The alerts' files as they are now. A file that was changed is read again, and a program that was changed is news;
a file that can't be used any more is told of, and what it said before goes on to hold.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from topics.catalogue import NOTICE_REQUESTS, Catalogue
from wrapper.alert_file import Alert, AlertFileError, load

log = logging.getLogger(__name__)
Print = tuple[tuple[str, int | None], ...]  # (path, when it was changed in ns)


class Files:
    """`alerts` by name; `prints` differ for an alert when it, or its program, was changed. AlertFileError."""

    def __init__(self, files: list[Path], catalogue: Catalogue) -> None:
        self._files, self._types = files, catalogue.entity_types
        self._most_shards = catalogue.topics()[NOTICE_REQUESTS].partitions
        self._seen = _print(files)
        self.alerts = self._load()
        self.prints = self._prints()

    def look(self) -> None:
        """See what was changed."""
        seen = _print(self._files)
        if seen != self._seen:
            self._seen = seen
            try:
                self.alerts = self._load()
            except AlertFileError as error:
                log.error("the changed file can't be used, what it said before goes on: %s", error)  # noqa: TRY400
        self.prints = self._prints()

    def _load(self) -> dict[str, Alert]:
        return {a.name: a for a in load(self._files, self._types, self._most_shards)}

    def _prints(self) -> dict[str, tuple[Alert, Print]]:
        return {name: (a, _print([_program(a)])) for name, a in self.alerts.items()}


def _program(alert: Alert) -> Path:
    """The first word of `run` that is a file of its own: whatever follows may be a file that the program writes."""
    paths = [alert.cwd / part for part in alert.run]
    return next((path for path in paths if _changed(path) is not None), paths[0])


def fingerprint(alert: Alert) -> str:
    """Which program it is, wherever it runs: another one may follow what this one ends at."""
    path = _program(alert)
    own = path.read_bytes() if _changed(path) is not None else b""
    return hashlib.sha256("\0".join(alert.run).encode() + b"\0" + own).hexdigest()


def _print(paths: list[Path]) -> Print:
    return tuple((str(path), _changed(path)) for path in paths)


def _changed(path: Path) -> int | None:
    """Null for what is no file."""
    try:
        return path.stat().st_mtime_ns if path.is_file() else None
    except OSError:  # a name too long for a path, as an argument may be
        return None
