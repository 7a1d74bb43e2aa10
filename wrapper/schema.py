"""The JSON Schema of every line that goes between the wrapper and a program, made from the models.

`python -m wrapper.schema` prints what docs/alert-protocol.schema.json holds. What programs say is checked by these very
models (`wrapper/protocol.py`); what they hear is built from raw texts (`wrapper/lines.py`);
tests hold it against them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter

from wrapper import protocol


class _Heard(BaseModel):
    """A line on stdin; later versions may add members."""


class HelloLimits(_Heard):
    """The longest line (bytes), the largest state (bytes), the most open keys, the longest key (characters)."""

    line: int
    state: int
    open: int
    key: int


class HelloLine(_Heard):
    """The first line. `gap`: the snapshot is of now, and what happened before may be unknown."""

    type: Literal["hello"]
    v: list[int]
    alert: str
    shard: Annotated[str, Field(pattern=r"^\d+/\d+$")]
    resumed: bool
    gap: bool
    now: int
    state: Any
    open: list[str]
    must: list[str]
    limits: HelloLimits


class _Numbered(_Heard):
    """`seq` is what `done` acknowledges; `now` is the time, in ms since 1970."""

    seq: Annotated[int, Field(ge=1)]
    now: int


class _Change(_Numbered):
    """`set` always has the whole `value`; `snapshot` lines are the world at the start."""

    op: Literal["set", "delete"]
    snapshot: Literal[True] | None = None
    id: str
    value: dict[str, Any] | None = None


class ConfigLine(_Change):
    """A config of this alert; `reason` says why it is gone: disabled, renamed, deleted."""

    type: Literal["config"]
    reason: Literal["disabled", "renamed", "deleted", ""] | None = None


class EntityLine(_Change):
    """An entity that the alert watches; `at` is the change's own time."""

    type: Literal["entity"]
    entity_type: str
    at: int | None = None


class RecipientLine(_Change):
    """What programs may know of a person: name, locale, time_zone."""

    type: Literal["recipient"]


class ReadyLine(_Numbered):
    """The snapshot is complete."""

    type: Literal["ready"]
    count: dict[Literal["config", "entity", "recipient"], int]


class TickLine(_Numbered):
    """Time passed."""

    type: Literal["tick"]


Heard = Annotated[
    HelloLine | ConfigLine | EntityLine | RecipientLine | ReadyLine | TickLine, Field(discriminator="type")
]
Said = Annotated[protocol.Message, Field(discriminator="type")]


class Lines(BaseModel):
    """`stdin`: what a program hears; `stdout`: what it says. One JSON object a line."""

    stdin: Heard
    stdout: Said


def schema() -> dict[str, Any]:
    """The schema of both directions (JSON Schema 2020-12)."""
    found = TypeAdapter(Lines).json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found, "title": "Alert protocol v1"}


if __name__ == "__main__":
    print(json.dumps(schema(), indent=1))  # noqa: T201 - its purpose
