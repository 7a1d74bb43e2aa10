"""The alert's file (TOML): which programs run, what they watch, and what they are given. Unknown fields are refused by
name.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class AlertFileError(ValueError):
    """The file can't be used; the message says which field and why."""


class Limits(BaseModel):
    """What a program may use; enforced where the system can."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    memory: str = "512M"
    cpu_seconds: int = 0
    files: int = 256


class Alert(BaseModel):
    """One program. `run` is an argv array, never a shell string; `cwd` is absolute once loaded; `env` are names that
    are passed on.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f/]+$")]
    run: Annotated[list[str], Field(min_length=1)]
    entities: list[str] = []
    mode: Literal["protocol", "plain"] = "protocol"
    shards: Annotated[int, Field(ge=1)] = 1
    env: list[str] = []
    cwd: Path = Path()
    on_reject: Literal["park", "stop"] = "park"
    limits: Limits = Limits()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    alert: Annotated[list[Alert], Field(min_length=1)]


def load(files: list[Path], entity_types: tuple[str, ...]) -> list[Alert]:
    """All alerts of `files`. AlertFileError for a broken file, a name used twice, or an unknown entity type."""
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
            if alert.mode == "plain":
                raise AlertFileError(
                    f'{file}: alert {alert.name!r}: mode = "plain" is not there yet; use mode = "protocol"'
                )
            if alert.shards != 1:
                raise AlertFileError(f"{file}: alert {alert.name!r}: only shards = 1 can be run for now")
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
