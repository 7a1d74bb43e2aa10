"""The alert's file (TOML): which programs run, what they watch, and what they are given. Unknown fields are refused by
name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError


class AlertFileError(ValueError):
    """The file can't be used; the message says which field and why."""


_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _bytes(given: object) -> int:
    """`512M`, `2G`, or a number of bytes."""
    if isinstance(given, str) and given[:-1].isdigit() and given[-1:] in _UNITS:
        return int(given[:-1]) * _UNITS[given[-1]]
    if isinstance(given, int) and not isinstance(given, bool) and given > 0:
        return given
    raise ValueError("a size is a number of bytes, or a text like 512M or 2G")


class Limits(BaseModel):
    """What a program may use: resident `memory` (bytes, with all that it starts), processor time in all (`cpu_seconds`,
    0: any), open `files`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    memory: Annotated[int, BeforeValidator(_bytes)] = 512 << 20
    cpu_seconds: Annotated[int, Field(ge=0)] = 0
    files: Annotated[int, Field(ge=16)] = 256


class Alert(BaseModel):
    """One program. `run` is an argv array, never a shell string; `cwd` is absolute once loaded; `env` are names that
    are passed on; `user`: as whom it runs, if not as the wrapper, which then has to be root.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f/]+$")]
    run: Annotated[list[str], Field(min_length=1)]
    entities: list[str] = []
    mode: Literal["protocol", "plain"] = "protocol"
    shards: Annotated[int, Field(ge=1)] = 1
    user: str | None = None
    env: list[str] = []
    cwd: Path = Path()
    on_reject: Literal["park", "stop"] = "park"
    limits: Limits = Limits()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    alert: Annotated[list[Alert], Field(min_length=1)]


def load(files: list[Path], entity_types: tuple[str, ...], most_shards: int) -> list[Alert]:
    """All alerts of `files`. AlertFileError for a broken file, a name used twice, an unknown entity type, or too many
    shards.
    """
    found: dict[str, Alert] = {}
    for file in files:
        for alert in read(file):
            if alert.name in found:
                raise AlertFileError(f"{file}: alert {alert.name!r} stands there twice, or in another file too")
            if missing := [t for t in alert.entities if t not in entity_types]:
                known = ", ".join(entity_types) or "none"
                raise AlertFileError(
                    f"{file}: alert {alert.name!r} watches {missing[0]!r}, but the entity types are: {known}"
                )
            if alert.shards > most_shards:
                raise AlertFileError(
                    f"{file}: alert {alert.name!r}: {alert.shards} shards, but topics have {most_shards} partitions"
                )
            found[alert.name] = alert
    return list(found.values())


def read(file: Path) -> list[Alert]:
    """The alerts of one file. AlertFileError for a broken one."""
    try:
        alerts = _File.model_validate(tomllib.loads(file.read_text())).alert
    except OSError as error:
        raise AlertFileError(f"{file}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise AlertFileError(f"{file}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise AlertFileError(f"{file}: {'.'.join(str(p) for p in first['loc'])}: {first['msg']}") from error
    return [a.model_copy(update={"cwd": (file.parent / a.cwd).resolve()}) for a in alerts]
