"""`tidings doctor`: asks everything that Tidings needs whether it is there, and says what to do about each fault."""

from __future__ import annotations

from pathlib import Path

import click

from tidings.cli.failures import Failed, in_one_line
from tidings.cli.log_of import data_option


@click.command()
@data_option
def doctor(data: Path) -> None:
    """Check the settings, Kafka, the topics, the database, SMTP, the gateway and the secret. Exit code 1 if
    something is wrong.
    """
    with in_one_line():
        from tidings.examination import examine  # noqa: PLC0415 - `--help` is to be quick

        wrong = 0
        for name, fault in examine(data):
            wrong += fault is not None
            click.echo(f"{'wrong' if fault else 'well':6} {name}{f': {fault}' if fault else ''}")
    if wrong:
        raise Failed(f"{wrong} of these are wrong")
