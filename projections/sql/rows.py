"""From rows to what the folds work on: columns in the order of the fields, because names cost more than the query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import literal_column

from projections.notice import Notice, Step
from projections.sql.schema import notices, steps
from topics.catalogue import NOTICES
from topics.codec import decode
from topics.events import Record

NO_TEXT = "{}"  # stands for a body that is left in the rows
_named = {"user": [notices.c.user_id], "version": [notices.c.version_offset, notices.c.version_index], "steps": []}
_fields = [f.name for f in fields(Notice)]
_version = _fields.index("version")
NOTICE: list[Any] = [c for f in _fields for c in (_named[f] if f in _named else [notices.c[f]])]
STEP: list[Any] = [steps.c[f.name] for f in fields(Step)]


def notice_columns(**left: str) -> list[Any]:
    """NOTICE, but for some columns these texts, so that what stands there is left in the rows."""
    return [literal_column(f"'{left[c.name]}'") if c.name in left else c for c in NOTICE]


def notice_of(row: Sequence[Any], waiting: dict[str, Step]) -> Notice:
    """A notice from the columns NOTICE of its row."""
    values: list[Any] = [*row[:_version], (row[_version], row[_version + 1]), *row[_version + 2 :], waiting]
    return Notice(*values)


def step_of(row: Sequence[Any]) -> Step:
    """A step from the columns STEP of its row."""
    return Step(*row)


def early_of(row: Any) -> Record:
    """A record that came early, from its row of `early`."""
    return Record(NOTICES, row.partition, row.offset, row.at, row.user_id, decode(bytes(row.value)))
