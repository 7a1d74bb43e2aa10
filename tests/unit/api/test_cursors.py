"""A cursor comes back as it went; what no page gave is refused before a database sees it."""

from __future__ import annotations

import pytest

from api.http.cursors import decode_cursor, encode_cursor
from api.problems import Problem
from projections.sql.views.notices import Cursor


def test_a_cursor_comes_back_as_it_went() -> None:
    assert decode_cursor(encode_cursor(Cursor(7, "n"))) == Cursor(7, "n")


@pytest.mark.parametrize("offset", [-1, 2**63, 2**64 - 1])
def test_an_offset_that_no_database_takes_is_refused(offset: int) -> None:
    with pytest.raises(Problem, match="bad_cursor"):
        decode_cursor(encode_cursor(Cursor(offset, "n")))
