"""What all runs of one alert share: the alert, the way to the log, limits in time, the numbers that people see."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from topics.catalogue import NOTICE_REQUESTS, Catalogue
from topics.cluster import Cluster
from topics.fetch import Spot
from topics.partition import partition_of
from wrapper.alert_file import Alert
from wrapper.clock import Clock
from wrapper.outbound import Outbound

Place = tuple[Spot, int]  # where a record stands


@dataclass(frozen=True, slots=True)
class Timing:
    """Limits in seconds; section 5 of the protocol."""

    handshake: float = 10
    warn: float = 30
    silent: float = 300
    stuck: float = 600
    stop: float = 10
    terminate: float = 5
    standby: float = 10
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
    ends: Counter[str] = field(default_factory=Counter)  # of the program, by cause


@dataclass(frozen=True, slots=True)
class Setting:
    """`instance` names this process among all wrappers; `ending` is set when it has to end. `skipped` are inputs at
    which the program always ends; `operators` are told when it gets nowhere; worlds are kept in `state_dir`.
    """

    alert: Alert
    cluster: Cluster
    catalogue: Catalogue
    outbound: Outbound
    clock: Clock
    instance: str
    ending: threading.Event
    timing: Timing
    numbers: Numbers
    shard: int = 0
    operators: tuple[str, ...] = ()
    state_dir: Path | None = None
    skipped: set[Place] = field(default_factory=set)

    @property
    def own(self) -> Spot:
        """The partition of the alert's chain."""
        partitions = self.catalogue.topics()[NOTICE_REQUESTS].partitions
        return Spot(NOTICE_REQUESTS, partition_of(self.alert.name, partitions))

    @property
    def world_file(self) -> Path | None:
        """Where its world is kept from process to process; null if nowhere."""
        return self.state_dir and self.state_dir / f"{quote(self.alert.name, safe=' ')[:200]}-{self.shard}.world"

    def report(self, kind: str, *, config_id: str | None = None, **told: str) -> None:
        """Tell people how the alert is."""
        self.outbound.report(self.alert.name, self.shard, kind, config_id=config_id, **told)

    @property
    def name(self) -> str:
        """The alert, and which of its shards if it has several."""
        return shown_as(self.alert, self.shard)


def shown_as(alert: Alert, shard: int) -> str:
    """How people are told of a shard: the alert's name, with `/1` to `/N` if there are several."""
    return alert.name if alert.shards == 1 else f"{alert.name}/{shard + 1}"
