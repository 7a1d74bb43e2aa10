"""How much happens in a run, what goes wrong how often and for how long: as `make test` has it, and at full length."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Shape:
    """Times in seconds. `freeze_s` is longer than the worker's session (6 s) and the sender's lease here (6 s).

    `pauses_s`: the mean time between two faults of a kind, by lane; what is not named does not happen.
    """

    flow_s: float
    directs: int
    changes: int
    announcements: int
    strangers: int
    broker_down_s: float
    database_down_s: float
    settle_s: float
    freeze_s: tuple[float, float] = (7.0, 9.0)
    forward_after_s: float = 4.0
    rebuild_s: float = 30.0
    pauses_s: dict[str, float] = field(default_factory=dict)


SCALED = Shape(
    flow_s=26,
    directs=1_000,
    changes=180,
    announcements=2,
    strangers=120,
    broker_down_s=5,
    database_down_s=5,
    settle_s=90,
    freeze_s=(6.4, 7.2),
    rebuild_s=8,
    pauses_s={
        "kills": 2.0,
        "freezes": 0.5,
        "broker": 5.0,
        "database": 5.0,
        "members": 6.0,
        "copies": 5.0,
        "rebuilds": 7.0,
    },
)
FULL = Shape(
    flow_s=300,
    directs=12_000,
    changes=1_500,
    announcements=6,
    strangers=1_200,
    broker_down_s=20,
    database_down_s=60,
    settle_s=240,
    pauses_s={
        "kills": 5.0,
        "freezes": 3.0,
        "broker": 45.0,
        "database": 45.0,
        "members": 25.0,
        "copies": 40.0,
        "rebuilds": 45.0,
    },
)
CALM = Shape(
    flow_s=12,
    directs=80,
    changes=60,
    announcements=0,
    strangers=16,
    broker_down_s=0,
    database_down_s=0,
    settle_s=90,
    pauses_s={},
)
