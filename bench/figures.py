"""Percentiles and tables."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of all lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def spread(name: str, milliseconds: Sequence[float]) -> str:
    """One row: how many, p50, p99, the largest."""
    p50, p99 = percentile(milliseconds, 0.5), percentile(milliseconds, 0.99)
    return f"| {name} | {len(milliseconds)} | {p50:.1f} | {p99:.1f} | {max(milliseconds):.1f} |"


HEAD = "| what (ms) | samples | p50 | p99 | max |\n|---|---|---|---|---|"
