"""What the first start of the demo sets up, once: the person `you`, two alert configs, and one direct notice about
this machine.

Each step is harmless to repeat, since a kill may fall between a step and the note that it was done; afterwards the
note keeps what somebody has deleted deleted.
"""

from __future__ import annotations

from typing import Any

from tidings.gateway_client import GatewayClient, Refused
from tidings.installation import Installation

USER = "you"
ADDRESS = "you@example.test"
DONE = "demo.json"
THERE_ALREADY = (409, 412)
FORWARD = {"steps": [{"channel": "email", "after": "30s"}]}
CHANNEL = {"inbox": [USER], "email": [USER]}
CONFIGS: tuple[dict[str, Any], ...] = (
    {
        "id": "demo-cpu",
        "name": "overuse",
        "metric": {"field": "cpu", "high": 90, "low": 70, "for_s": 5},
        "channel": CHANNEL,
        "forward": FORWARD,
    },
    {
        "id": "demo-disk",
        "name": "disk-nearly-full",
        "metric": {"percent": 90},
        "channel": CHANNEL,
        "forward": FORWARD,
    },
)


class Seed:
    """`sow` until it is done; it then does nothing more, at later starts too."""

    def __init__(self, installation: Installation, host: str) -> None:
        self._installation, self._host = installation, host
        self._done = (installation.path / DONE).exists()

    def sow(self, client: GatewayClient) -> None:
        """Refused, Unreachable: try again later."""
        if self._done:
            return
        person = {"name": "You", "addresses": {"email": ADDRESS}}
        _unless_there(client, "PUT", f"/v1/recipients/{USER}", person, {"if-none-match": "*"})
        for config in CONFIGS:
            _unless_there(client, "POST", "/v1/alert-configs", config)
        client.call("POST", "/v1/notices", self._welcome(), {"idempotency-key": f"demo-welcome-{self._host}"})
        self._installation.write(DONE, '{"sown": true}')
        self._done = True

    def _welcome(self) -> dict[str, Any]:
        return {
            "to": [USER],
            "title": f"Tidings watches {self._host}",
            "text": (
                "This machine is now an entity, and two alerts watch it: one its processor, one its disks. Make it "
                "busy with the page's button or with `tidings demo stress`, and a notice follows. "
                "Leave a notice unread for 30 s, and it comes as an e-mail, as this one will."
            ),
            "severity": "info",
            "entity": {"type": "host", "id": self._host},
            "forward_after": 30,
        }


def _unless_there(
    client: GatewayClient, method: str, path: str, body: Any, headers: dict[str, str] | None = None
) -> None:
    try:
        client.call(method, path, body, headers)
    except Refused as refused:
        if refused.status not in THERE_ALREADY:
            raise
