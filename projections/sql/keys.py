"""Rows by many keys: one statement with one parameter, however many keys there are.

A list of parameters would be written out anew for each batch, which costs more than the look-ups themselves. So the
keys go as one JSON text, which the database takes apart.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import Column, Text, TypeDecorator, bindparam
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import NullType


class _Keys(TypeDecorator[Any]):
    """A collection of texts, or of tuples of texts, as JSON."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Iterable[Any] | None, dialect: Any) -> str:  # noqa: ARG002 - the same for both
        return orjson.dumps(list(value or ())).decode()


class _Among(FunctionElement[Any]):
    inherit_cache = True
    type = NullType()  # of a Boolean SQLite would be asked whether it = 1, and not look at an index


def among(*columns: Column[Any]) -> Any:
    """A condition: the columns (of texts) are among the parameter `keys`, texts for one column, else tuples of them."""
    return _Among(*columns, bindparam("keys", type_=_Keys))


@compiles(_Among, "sqlite")
def _sqlite(element: _Among, compiler: SQLCompiler, **kw: Any) -> str:
    return _compiled(element, compiler, "json_each({}) AS given", "json_each({}) AS given", kw)


@compiles(_Among, "postgresql")
def _postgresql(element: _Among, compiler: SQLCompiler, **kw: Any) -> str:
    one, many = "jsonb_array_elements_text", "jsonb_array_elements"
    return _compiled(element, compiler, one + "({}::jsonb) AS given(value)", many + "({}::jsonb) AS given(value)", kw)


def _compiled(element: _Among, compiler: SQLCompiler, one: str, many: str, kw: dict[str, Any]) -> str:
    *columns, keys = [compiler.process(c, **kw) for c in element.clauses]
    parts = [f"given.value->>{i}" for i in range(len(columns))] if len(columns) > 1 else ["given.value"]
    source = (many if len(columns) > 1 else one).format(keys)
    return f"({', '.join(columns)}) IN (SELECT {', '.join(parts)} FROM {source})"  # noqa: S608 - names of columns, and a parameter
