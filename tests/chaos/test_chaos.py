"""All faults at once for half a minute, on real processes: nothing lost, nothing twice, one decision a question.

CHAOS_SEED in the environment gives other faults at other moments. `make chaos` plays it at full length.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.round import play
from tests.chaos.shape import SCALED

NEAR_RACES = 30  # of each order at least


@pytest.mark.timeout(300)
async def test_nothing_is_lost_and_nothing_twice(tmp_path: Path) -> None:
    seed = int(os.environ.get("CHAOS_SEED", "20261123"))
    outcome = await play(tmp_path, "sqlite", seed, SCALED)
    print(f"\nseed {seed}: {outcome.counts}")  # noqa: T201 - for whoever runs it by hand
    assert outcome.counts["races won by the reader"] > NEAR_RACES
    assert outcome.counts["races won by the Due"] > NEAR_RACES
