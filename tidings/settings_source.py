"""Where settings come from: TIDINGS_* variables, then tidings.toml in the working directory.

A name that no role knows is a typing mistake that would otherwise be silent, so it is refused with the nearest name.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

PREFIX = "TIDINGS_"
CHANNEL = "channel_"  # and the channel's name
LIMIT = "limit_"  # and the limit's name
FILE = Path("tidings.toml")


class SettingsError(ValueError):
    """A setting is unknown, missing or wrong; the message is for people, one line each."""


class Given(PydanticBaseSettingsSource):
    """All settings that were given, the environment before the file."""

    def __init__(self, settings: type[BaseSettings], known: Iterable[str]) -> None:
        super().__init__(settings)
        self._known = frozenset(known)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Not used: `__call__` gives everything at once."""
        raise NotImplementedError

    def __call__(self) -> dict[str, Any]:
        """Field name to what was given for it."""
        given = from_file(FILE, self._known) | from_environment(os.environ, self._known)
        fields = {name: value for name, value in given.items() if name in self.settings_cls.model_fields}
        for name, start in (("channel", CHANNEL), ("limit", LIMIT)):
            if name in self.settings_cls.model_fields:
                fields[name] = {n.removeprefix(start): v for n, v in given.items() if n.startswith(start)}
        return fields


def from_environment(environment: Mapping[str, str], known: frozenset[str]) -> dict[str, str]:
    """TIDINGS_KAFKA → kafka; an empty one is as good as none. SettingsError for a name that nobody knows."""
    given = {n.removeprefix(PREFIX).lower(): v for n, v in environment.items() if n.startswith(PREFIX)}
    refuse_unknown(given, known, shown=lambda name: PREFIX + name.upper(), place="the environment")
    return {name: value for name, value in given.items() if value}


def from_file(path: Path, known: frozenset[str]) -> dict[str, Any]:
    """The names of the file are those of the variables, small and without TIDINGS_. SettingsError."""
    try:
        given = tomllib.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path} can't be read: {error}") from error
    refuse_unknown(given, known, shown=lambda name: name, place=str(path))
    return given


def refuse_unknown(given: Iterable[str], known: frozenset[str], *, shown: Any, place: str) -> None:
    """SettingsError that names each unknown setting, and the known one that looks most like it."""
    complaints = []
    for name in given:
        if name in known or (name.startswith(CHANNEL) and len(name) > len(CHANNEL)):
            continue
        near = get_close_matches(name, known, n=1, cutoff=0.6)
        hint = f"did you mean {shown(near[0])}?" if near else "see `tidings --help` for the names"
        complaints.append(f"{place} has {shown(name)}, which is no setting: {hint}")
    if complaints:
        raise SettingsError("\n".join(complaints))
