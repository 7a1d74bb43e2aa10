"""The command line, settings and up: the one place that wires every room."""
