"""Benchmarks: each prints absolute numbers beside ratios to a physical limit or a peer measured in the same run."""
