"""What the sender needs to know; `tidings/` reads it from the environment.

A lease has to be longer than an attempt, or no step could have a deadline within it (rule 8).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LEASE_MARGIN_S = 2.0  # what an attempt leaves of its lease, for the way back to the database


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderSettings:
    """`smtp`: smtp://user:pass@host:port (TLS where offered; `?starttls` demands it, `?starttls=no` forbids it) or
    smtps://.

    `channels`: name to Apprise URL with `{address}`. Times in seconds. `metrics_port` null: none; 0: any free one.
    """

    smtp: str | None = None
    mail_from: str = "Tidings <tidings@localhost>"
    channels: Mapping[str, str] = field(default_factory=dict)
    concurrency: int = 10
    lease_s: float = 30.0
    attempt_s: float = 15.0
    first_retry_s: float = 10.0
    poll_s: float = 0.25
    metrics_host: str = "127.0.0.1"
    metrics_port: int | None = None

    def __post_init__(self) -> None:
        if self.attempt_s + LEASE_MARGIN_S >= self.lease_s:
            raise ValueError(f"an attempt of {self.attempt_s:g} s does not fit into a lease of {self.lease_s:g} s")
