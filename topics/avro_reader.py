"""Makes of an event's schema a function that reads its bytes straight into the dataclass.

It is Python written from the schema, as `dataclasses` writes `__init__`: half the time of fastavro's dict and of what
made an event of it, and reading is what every process does most. Only for records written by the schema that is read
today; older ones are resolved by fastavro. Broken bytes raise IndexError or ValueError, in whatever they end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Read = Callable[[bytes, int], tuple[Any, int]]  # the bytes, and where the event begins: the event, and where it ends


def reader_of(schema: Any, classes: Callable[[str], type]) -> Read:
    """For a parsed schema of a record; `classes` gives the dataclass of a record's name."""
    writer = _Source(classes)
    writer.record(schema, "made", "    ")
    lines = ["def read(data, at):", *writer.lines, "    return made, at"]
    exec("\n".join(lines), writer.names)  # noqa: S102 - written here from our own schemas; no byte of a record gets in
    read: Read = writer.names["read"]
    return read


class _Source:
    """The lines of a function, and the names that they use."""

    def __init__(self, classes: Callable[[str], type]) -> None:
        self._classes = classes
        self._records: dict[str, Any] = {}
        self.names: dict[str, Any] = {"new": object.__new__, "long": _long, "size": _size, "refuse": _refuse}
        self.lines: list[str] = []

    def record(self, schema: Any, into: str, indent: str) -> None:
        """The lines that read a record into a variable. Its fields are set past `frozen`, as its `__init__` would."""
        self._records[schema["name"]] = schema
        cls = self._classes(schema["name"].rpartition(".")[2])
        self.names[cls.__name__] = cls
        self._put(indent, f"{into} = new({cls.__name__})")
        for field in schema["fields"]:
            setter = f"{cls.__name__}_{field['name']}"
            self.names[setter] = getattr(cls, field["name"]).__set__
            value = f"{into}_{field['name']}"
            self._value(field["type"], value, indent)
            self._put(indent, f"{setter}({into}, {value})")

    def _value(self, kind: Any, into: str, indent: str) -> None:
        if isinstance(kind, str) and kind in self._records:
            kind = self._records[kind]
        name = kind["type"] if isinstance(kind, dict) else "union" if isinstance(kind, list) else kind
        match name:
            case "string" | "bytes":
                text = name == "string"
                self._put(indent, "n = data[at]", "at += 1")
                self._put(indent, "if n & 129: n, at = size(data, at - 1)", "else: n >>= 1")  # a byte says it, usually
                self._put(indent, f"{into} = data[at:at + n]{'.decode()' if text else ''}", "at += n")
                if text:
                    self._put(indent, f"if '\\0' in {into}: refuse('a text holds NUL')")
            case "long":
                self._put(indent, f"{into} = data[at]", f"if {into} & 129: {into}, at = long(data, at)")
                self._put(indent, f"else: {into}, at = {into} >> 1, at + 1")
            case "boolean":
                self._put(indent, f"{into} = data[at] != 0", "at += 1")
            case "union":  # of null and one other
                self._put(indent, "n = data[at]", "at += 1", f"if n == 0: {into} = None", "elif n == 2:")
                self._value(kind[1], into, indent + "    ")
                self._put(indent, "else: refuse('no such branch')")
            case "array":
                self._array(kind["items"], into, indent)
            case "record":
                self.record(kind, into, indent)
            case _:
                raise TypeError(f"a field of type {name} has no reader")

    def _array(self, items: Any, into: str, indent: str) -> None:
        """Blocks of so many items; after a negative count comes the size of the block, and a count of 0 is the end."""
        self._put(indent, f"{into}_s = []")
        self._value("long", f"{into}_n", indent)
        self._put(indent, f"while {into}_n:")
        self._put(indent, f"    if {into}_n < 0: {into}_n, (_, at) = -{into}_n, long(data, at)")
        self._put(indent, f"    for _ in range({into}_n):")
        self._value(items, f"{into}_i", indent + "        ")
        self._put(indent, f"        {into}_s.append({into}_i)")
        self._put(indent, f"    {into}_n, at = long(data, at)", f"{into} = tuple({into}_s)")

    def _put(self, indent: str, *lines: str) -> None:
        self.lines += [indent + line for line in lines]


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A number of up to 64 bits, seven of them in a byte, and where it ends."""
    byte = data[at]
    found, shift = byte & 127, 7
    while byte > 127:
        at += 1
        byte = data[at]
        found |= (byte & 127) << shift
        shift += 7
    if found >> 64:
        _refuse("a number of more than 64 bits")
    return (found >> 1) ^ -(found & 1), at + 1


def _size(data: bytes, at: int) -> tuple[int, int]:
    found, at = _long(data, at)
    if found < 0:
        _refuse("a negative length")
    return found, at


def _refuse(why: str) -> None:
    raise ValueError(why)
