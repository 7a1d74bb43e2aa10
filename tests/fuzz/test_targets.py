"""Whatever reads the bytes of strangers refuses them in its documented way, and in no other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.profile import mutated, profile
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
@profile(200)
@given(st.data())
def test_bytes_of_strangers_are_read_or_refused(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(mutated(SEEDS[name])))


@pytest.mark.parametrize("name", TARGETS)
def test_what_each_is_first_shown(name: str) -> None:
    for seed in SEEDS[name]:
        TARGETS[name](seed)
