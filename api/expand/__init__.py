"""Entities as backends answer them, for those who subscribe with `expand`."""
