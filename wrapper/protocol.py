"""What an alert program may print: messages as pydantic models, and stdout cut into lines with a limit.

Tolerant of stray text, strict on the protocol: a line that does not start with `{` is text for the log, one that does
must be valid. `data` and `state` are kept as the JSON text that was printed, so that no number changes on its way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
    WithJsonSchema,
)

from topics import json_text

LINE_BYTES = 1024 * 1024
STATE_BYTES = 256 * 1024
DATA_BYTES = 64 * 1024
OPEN_KEYS = 20_000
KEY_CHARACTERS = 128
EXCERPT = 200


def _no_nul(text: str) -> str:
    if "\x00" in text:  # PostgreSQL's TEXT refuses it, long after the author could be told
        msg = "must not contain U+0000"
        raise ValueError(msg)
    return text


ANY_JSON = WithJsonSchema({})  # kept as text here, but printed as JSON
_clean = AfterValidator(_no_nul)
Name = Annotated[str, Field(min_length=1, max_length=KEY_CHARACTERS), _clean]
Id = Annotated[str, Field(min_length=1, max_length=500), _clean]


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class EntityRef(_Message):
    """Which entity a notice is about."""

    type: Id
    id: Id


class Hello(_Message):
    """The program's answer to `hello`. `tick_s` 0: no ticks; `wants` null: everything."""

    type: Literal["hello"]
    v: Literal[1]
    tick_s: Annotated[float, Field(ge=0, le=86_400)] = 0
    wants: list[str] | None = None
    state: Literal["drop"] | None = None


class Notice(_Message):
    """Somebody should know. `key` names the condition; `to` narrows the config's channel; `data` is JSON text."""

    type: Literal["notice"]
    key: Name
    config: Id
    title: Annotated[str, Field(min_length=1, max_length=300), _clean]
    text: Annotated[str, Field(max_length=16 * 1024), _clean] = ""
    entity: EntityRef | None = None
    severity: Literal["info", "warning", "error", "critical"] | None = None
    data: Annotated[str, Field(max_length=DATA_BYTES), ANY_JSON] = "null"
    kind: Literal["condition", "event"] = "condition"
    update: StrictBool = False
    to: dict[str, list[str]] | None = None
    link: Annotated[str, Field(max_length=2048), _clean] | None = None


class Resolve(_Message):
    """The condition is over."""

    type: Literal["resolve"]
    key: Name
    data: Annotated[str, Field(max_length=DATA_BYTES), ANY_JSON] = "null"


class Error(_Message):
    """Told to the person who wrote the config."""

    type: Literal["error"]
    config: Id | None = None
    text: Annotated[str, Field(max_length=16 * 1024), _clean]


class Done(_Message):
    """The acknowledgement. `seq` null: the oldest outstanding line. `state` is JSON text; not among the fields set:
    unchanged.
    """

    type: Literal["done"]
    seq: StrictInt | None = None
    state: Annotated[str | None, Field(max_length=STATE_BYTES), ANY_JSON] = None


DONE = Done(type="done")  # what programs say most
_PLAIN_DONE = (b'{"type":"done"}', b'{"type": "done"}')
Message = Hello | Notice | Resolve | Error | Done
_models: dict[str, type[Message]] = {"hello": Hello, "notice": Notice, "resolve": Resolve, "error": Error, "done": Done}


@dataclass(frozen=True, slots=True)
class Stray:
    """Text that is no message: for the log."""

    text: str


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line that can't be taken. `reason`: bad_json, bad_type, bad_field, too_long, unknown_config or limit."""

    reason: str
    detail: str
    line: bytes


@dataclass(frozen=True, slots=True)
class TooLong:
    """A line over the limit: its beginning and its length in bytes."""

    head: bytes
    length: int


def parse(line: bytes | TooLong) -> Message | Stray | Rejected:
    """One line of stdout (without its end)."""
    if line in _PLAIN_DONE:
        return DONE
    if isinstance(line, TooLong):
        return Rejected("too_long", f"a line of {line.length} bytes; the limit is {LINE_BYTES}", line.head)
    if not line.startswith(b"{"):
        return Stray(line.decode("utf-8", "replace").rstrip("\r"))
    try:
        text = line.decode()
        fields = json_text.parse(text)
        if "\\u" in text:
            json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair has no UTF-8
    except (ValueError, RecursionError) as error:
        return Rejected("bad_json", str(error)[:EXCERPT] or type(error).__name__, line)
    model = _models.get(fields["type"]) if isinstance(fields.get("type"), str) else None
    if model is None:
        return Rejected("bad_type", f"type is {str(fields.get('type'))[:40]!r}; known are {', '.join(_models)}", line)
    if model is not Hello and ("data" in fields or "state" in fields):
        raw = json_text.members(text)
        fields |= {name: json_text.compact(raw[name]) for name in ("data", "state") if name in fields}
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        return _refused(error, line)


class LineSplitter:
    """Cuts a stream of bytes into lines; of a line over `limit` only the beginning is kept, and the next line is whole
    again.
    """

    def __init__(self, limit: int = LINE_BYTES) -> None:
        self._limit, self._held, self._length = limit, bytearray(), 0

    def feed(self, data: bytes) -> Iterator[bytes | TooLong]:
        """The lines that end in `data`."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            if not self._length and len(piece) <= self._limit:  # nearly always
                yield piece
                continue
            self._hold(piece)
            yield TooLong(bytes(self._held), self._length) if self._length > self._limit else bytes(self._held)
            self._held, self._length = bytearray(), 0
        self._hold(rest)

    @property
    def rest(self) -> bytes:
        """What came after the last line's end."""
        return bytes(self._held)

    def _hold(self, piece: bytes) -> None:
        self._length += len(piece)
        self._held += piece
        if self._length > self._limit:
            del self._held[EXCERPT * 4 :]


def _refused(error: ValidationError, line: bytes) -> Rejected:
    first: Any = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return Rejected("limit" if first["type"] == "string_too_long" else "bad_field", f"{where}: {first['msg']}", line)
