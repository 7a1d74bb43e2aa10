"""What all runs of one alert share: the alert, the way to the log, limits in time, the numbers that people see."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from topics.catalogue import NOTICE_REQUESTS, Catalogue
from topics.cluster import Cluster
from topics.fetch import Spot
from wrapper.alert_file import Alert
from wrapper.clock import Clock
from wrapper.outbound import Outbound

SHARD = 0  # the file allows one shard only for now


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits in seconds; section 5 of the protocol."""

    handshake: float = 10
    warn: float = 30
    silent: float = 300
    stuck: float = 600
    stop: float = 10
    terminate: float = 5
    restart: float = 1
    restart_most: float = 60
    failed_every: float = 600
    failed_restarts: int = 10
    failed_within: float = 600


@dataclass(slots=True)
class Numbers:
    """What a metrics page shows of one alert."""

    state: str = "starting"
    inputs: int = 0
    commits: int = 0
    effects: int = 0
    rejected: int = 0
    dropped: int = 0
    restarts: int = 0
    open: int = 0
    oldest_undone_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Setting:
    """`instance` names this process among all wrappers; `ending` is set when it has to end."""

    alert: Alert
    cluster: Cluster
    catalogue: Catalogue
    outbound: Outbound
    clock: Clock
    instance: str
    ending: threading.Event
    timing: Timing
    numbers: Numbers

    @property
    def own(self) -> Spot:
        """The partition of the alert's chain."""
        return Spot(NOTICE_REQUESTS, self.outbound.partition_of(NOTICE_REQUESTS, self.alert.name))

    def report(self, kind: str, *, config_id: str | None = None, **told: str) -> None:
        """Tell people how the alert is."""
        self.outbound.report(self.alert.name, SHARD, kind, config_id=config_id, **told)
