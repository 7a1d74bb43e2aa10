"""Tidings beside Debian's Alertmanager: the same alerts, by the same program, on the same machine, in one run."""
