"""This machine as an entity of type `host`: processor, memory, disks and load, as psutil sees them.

Percentages are of what this process may use, so that in a container with some of the processors full is full.
"""

from __future__ import annotations

import os
import platform
from typing import Any

import psutil

ENTITY_TYPE = "host"
PSEUDO = frozenset({"squashfs", "overlay", "tmpfs", "devtmpfs", "iso9660"})


def host_id() -> str:
    """The entity's id, which is its name: the host's, without what an id may not hold."""
    return "".join(c for c in platform.node() if c.isprintable())[:200] or "localhost"


class Host:
    """Samples of this machine; the first processor percentage is of the time since it was made."""

    def __init__(self) -> None:
        psutil.cpu_percent(percpu=True)

    def sample(self) -> dict[str, Any]:
        """The entity's body now."""
        memory = psutil.virtual_memory()
        return {
            "name": host_id(),
            "cpu": self._cpu(),
            "memory": round(memory.percent, 1),
            "load": [round(load, 2) for load in psutil.getloadavg()],
            "disks": disks(),
            "cpus": len(_own_cpus()),
            "memory_total": memory.total,
            "system": f"{platform.system()} {platform.release()}",
        }

    def _cpu(self) -> float:
        every = psutil.cpu_percent(percpu=True)
        own = [every[i] for i in _own_cpus() if i < len(every)] or every
        return round(sum(own) / len(own), 1) if own else 0.0


def disks() -> list[dict[str, Any]]:
    """Mount point and how full it is, of every real disk and of the root; a mount that can't be asked is left out."""
    mounts = ["/", *(p.mountpoint for p in psutil.disk_partitions() if p.fstype not in PSEUDO)]
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for mount in sorted(set(mounts), key=lambda m: (len(m), m)):
        try:
            usage = psutil.disk_usage(mount)
        except OSError:
            continue
        found.setdefault((usage.total, usage.used), {"mount": mount, "percent": usage.percent, "total": usage.total})
    return [disk for disk in found.values() if disk["total"]][:20]


def _own_cpus() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
