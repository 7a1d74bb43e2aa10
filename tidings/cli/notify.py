"""`tidings notify`: a direct notice, through the gateway, which decides who is told where."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import click

from tidings.cli.failures import Failed, in_one_line
from tidings.cli.log_of import data_option, gateway_at

SUBJECT = "cli"


@click.command()
@click.option("--to", multiple=True, required=True, help="A user id; may be repeated, or comma-separated.")
@click.option("--title", required=True)
@click.option("--text", help="More than the title says.")
@click.option(
    "--severity", type=click.Choice(["info", "warning", "error", "critical"]), default="info", show_default=True
)
@click.option("--link", help="Where to look.")
@click.option("--key", help="Names a condition that lasts, until a notice with this key is resolved.")
@click.option("--forward-after", type=float, help="Seconds until it is forwarded if unread; 0 at once.")
@click.option("--idempotency-key", help="A repeat with the same one says nothing new.  [default: a new one]")
@data_option
def notify(data: Path, idempotency_key: str | None, **given: Any) -> None:
    """Tell people something, now. The gateway is the one at TIDINGS_URL, or that of the `tidings up` on --data."""
    with in_one_line():
        from tidings.gateway_client import GatewayClient, Refused, Unreachable  # noqa: PLC0415

        given["to"] = [user.strip() for named in given["to"] for user in named.split(",") if user.strip()]
        notice = {name: value for name, value in given.items() if value is not None}
        url, token = gateway_at(data, SUBJECT, "notices:write")
        with GatewayClient(url, token) as client:
            try:
                headers = {"idempotency-key": idempotency_key or str(uuid.uuid4())}
                answer = client.call("POST", "/v1/notices", notice, headers)
            except (Refused, Unreachable) as reason:
                raise Failed(str(reason)) from reason
        for notice_id in answer.get("ids", {}).values():
            click.echo(notice_id)
