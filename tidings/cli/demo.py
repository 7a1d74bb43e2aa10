"""`tidings demo stress`: provokes the demo's alert."""

from __future__ import annotations

import click


@click.group()
def demo() -> None:
    """The demo of `tidings up`."""


@demo.command()
@click.option("--seconds", type=click.FloatRange(1, 60), default=45, show_default=True)
def stress(seconds: float) -> None:
    """Make this machine busy for some seconds, so that the demo's processor alert has something to say."""
    from tidings.demo.stress import burn  # noqa: PLC0415 - `--help` is to be quick

    click.echo(f"Keeping every processor busy for {seconds:g} s.")
    burn(seconds)
