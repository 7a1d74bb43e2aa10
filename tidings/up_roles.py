"""What `tidings up` hands to its roles: the environment of each, and ports that are free."""

from __future__ import annotations

import os
import secrets

from broker.embedded import PORTS
from broker.readiness import is_free
from tidings.installation import Running
from tidings.settings_source import PREFIX

# Settings of the user's that a role would take for its own, although `up` decides them.
DECIDED_HERE = ("METRICS_PORT", "URL", "TOKEN", "JWKS")


def environment(
    running: Running, *, database: str, secret: str, smtp: str, demo: str, host: str, port: int
) -> dict[str, str]:
    """The user's environment, with everything that `up` has decided."""
    kept = {n: v for n, v in os.environ.items() if n not in {PREFIX + name for name in DECIDED_HERE}}
    decided = {
        "KAFKA": running.bootstrap,
        "ENTITY_TYPES": ",".join(running.entity_types),
        "PARTITIONS": str(running.partitions),
        "DATABASE": database,
        "SECRET": secret,
        "SMTP": smtp,
        "DEMO": demo,
        "HOST": host,
        "PORT": str(port),
    }
    return kept | {PREFIX + name: value for name, value in decided.items()}


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody listens on, outside the range that the kernel gives to outgoing connections."""
    found: list[int] = []
    while len(found) < count:
        port = secrets.choice(PORTS)
        if port not in found and is_free(port):
            found.append(port)
    return found
