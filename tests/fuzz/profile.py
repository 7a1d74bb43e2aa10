"""How much is thrown at everything in `make test`: the same examples each time, less than 20 s of them in all.

FUZZ_TIMES=20 takes twenty times as many, and others each time.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

TIMES = int(os.environ.get("FUZZ_TIMES", "1"))


def profile(examples: int) -> settings:
    """So many examples, the same in every run. A slow one is no fault, none is kept on disk, and one that fails is
    shown as it was: to look for a smaller one at a gateway that no longer answers takes minutes.
    """
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
    )


@st.composite
def mutated(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """A right input with up to three places cut out, doubled or overwritten; now and then bytes of no meaning."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 3))):
        start, size = draw(st.integers(0, len(data))), draw(st.integers(0, 12))
        end = min(len(data), start + size)
        put = draw(st.sampled_from((b"", data[start:end] * 2)) | st.binary(max_size=12))
        data = data[:start] + put + data[end:]
    return data if draw(st.integers(0, 9)) else draw(st.binary(max_size=200))
