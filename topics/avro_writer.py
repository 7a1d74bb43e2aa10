"""Makes of an event's schema a function that writes the dataclass as bytes.

It is Python written from the schema, as `avro_reader` is for the other way: a third of the time of a dict of the event
and fastavro's look at it. A value of the wrong type raises AttributeError, TypeError or ValueError.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Write = Callable[[Any], bytes]


def writer_of(schema: Any, head: bytes) -> Write:
    """For a parsed schema of a record; what it writes begins with `head`."""
    source = _Source(head)
    source.record(schema, "event", "    ")
    lines = ["def write(event):", "    out = [head]", "    put = out.append", *source.lines, "    return b''.join(out)"]
    exec("\n".join(lines), source.names)  # noqa: S102 - written here from our own schemas; no byte of an event gets in
    write: Write = source.names["write"]
    return write


class _Source:
    """The lines of a function, and the names that they use."""

    def __init__(self, head: bytes) -> None:
        self._records: dict[str, Any] = {}
        self.names: dict[str, Any] = {"head": head, "long": _long, "short": _SHORT}
        self.lines: list[str] = []

    def record(self, schema: Any, of: str, indent: str) -> None:
        """The lines that write a record's fields, one after the other."""
        self._records[schema["name"]] = schema
        for field in schema["fields"]:
            self._value(field["type"], f"{of}.{field['name']}", indent)

    def _value(self, kind: Any, of: str, indent: str) -> None:
        if isinstance(kind, str) and kind in self._records:
            kind = self._records[kind]
        name = kind["type"] if isinstance(kind, dict) else "union" if isinstance(kind, list) else kind
        match name:
            case "string" | "bytes":
                self._put(indent, f"v = {of}.encode()" if name == "string" else f"v = {of}", "n = len(v)")
                self._put(indent, "put(short[n] if n < 4096 else long(n))", "put(v)")
            case "long":
                self._put(indent, f"n = {of}", "put(short[n] if 0 <= n < 4096 else long(n))")
            case "boolean":
                self._put(indent, f"put(b'\\1' if {of} else b'\\0')")
            case "union":  # of null and one other
                self._put(indent, f"if {of} is None: put(b'\\0')", "else:", "    put(b'\\2')")
                self._value(kind[1], of, indent + "    ")
            case "array":  # one block, and the end
                item = f"i{len(indent)}"
                self._put(indent, f"n = len({of})", "if n:", "    put(long(n))", f"    for {item} in {of}:")
                self._value(kind["items"], item, indent + "        ")
                self._put(indent, "put(b'\\0')")
            case "record":
                self.record(kind, of, indent)
            case _:
                raise TypeError(f"a field of type {name} has no writer")

    def _put(self, indent: str, *lines: str) -> None:
        self.lines += [indent + line for line in lines]


def _long(number: int) -> bytes:
    """A number of up to 64 bits: its sign last, seven bits in a byte, the lowest first."""
    left = number << 1 if number >= 0 else ~(number << 1)
    if left >> 64:
        raise ValueError("a number of more than 64 bits")
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


_SHORT = [_long(n) for n in range(4096)]  # most sizes
