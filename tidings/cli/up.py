"""`tidings up`."""

from __future__ import annotations

from pathlib import Path

import click

from tidings.cli.failures import Failed, in_one_line


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    default=Path("data"),
    show_default=True,
    help="Where everything is kept.",
)
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the page; 0 takes a free one.  [default: 8080]")
@click.option("--no-demo", is_flag=True, help="Without this machine as an entity and the alerts that watch it.")
def up(data: Path, host: str | None, port: int | None, no_demo: bool) -> None:  # noqa: FBT001 - click's way
    """Run everything on this machine, and print the link to its page.

    Kafka, a worker, a gateway, a sender, an SMTP server that shows its mail on the page, and a demo. Everything is
    kept in --data and survives kill -9. TIDINGS_KAFKA, TIDINGS_DATABASE and TIDINGS_SMTP name your own instead.
    Ctrl-C stops everything in order.
    """
    import asyncio  # noqa: PLC0415 - `--help` is to be quick

    from broker.embedded import BrokerError  # noqa: PLC0415
    from tidings.child import Hopeless  # noqa: PLC0415
    from tidings.installation import Installation  # noqa: PLC0415
    from tidings.settings import UpSettings, read  # noqa: PLC0415
    from tidings.up import CannotStart, Up  # noqa: PLC0415

    with in_one_line():
        settings = read(UpSettings, host=host, port=port)
        installation = Installation(data)
        installation.open()
        run = Up(settings, installation, demo=not no_demo, say=click.echo, tell=_tell)
        try:
            asyncio.run(run.run())
        except (BrokerError, CannotStart, Hopeless) as reason:
            raise Failed(str(reason)) from reason
        except OSError as error:
            raise Failed(f"{error.filename or data}: {error.strerror or error}") from error


def _tell(line: str) -> None:
    click.echo(f"tidings: {line}", err=True)
