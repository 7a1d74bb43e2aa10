"""Faust agents: thin shells, one processing step a file."""
