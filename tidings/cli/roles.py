"""`tidings worker | gateway | sender | wrapper`: one role each, for deployments. SIGTERM stops it; exit code 3 asks
for a restart.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tidings.cli.failures import in_one_line
from tidings.cli.log_of import data_option, found_at

F = TypeVar("F", bound=Callable[..., Any])


def _role(command: F) -> F:
    level = click.Choice(["debug", "info", "warning", "error"])
    command = click.option("--log-level", type=level, default="info", show_default=True)(command)
    return click.option("--parent", type=int, hidden=True, help="End with this process.")(command)


def _begin(role: str, log_level: str, parent: int | None) -> None:
    from tidings import logs  # noqa: PLC0415 - `--help` is to be quick
    from tidings.roles.process import die_with  # noqa: PLC0415

    if parent is not None:
        die_with(parent)
    logs.configure(role, log_level.upper())


@click.command()
@_role
def worker(log_level: str, parent: int | None) -> int:
    """Fold the log into the database, fan out, decide, keep time."""
    with in_one_line():
        _begin("worker", log_level, parent)
        from tidings.roles.worker import main  # noqa: PLC0415
        from tidings.settings import WorkerSettings, read  # noqa: PLC0415

        return main(read(WorkerSettings))


@click.command()
@_role
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8080]")
def gateway(log_level: str, parent: int | None, host: str | None, port: int | None) -> int:
    """Serve HTTP, WebSocket and the page."""
    with in_one_line():
        _begin("gateway", log_level, parent)
        from tidings.roles.gateway import main  # noqa: PLC0415
        from tidings.settings import GatewaySettings, read  # noqa: PLC0415

        return main(read(GatewaySettings, host=host, port=port))


@click.command()
@_role
def sender(log_level: str, parent: int | None) -> int:
    """Deliver what is due: e-mail, and every channel that has an Apprise URL."""
    with in_one_line():
        _begin("sender", log_level, parent)
        from tidings.roles.sender import main  # noqa: PLC0415
        from tidings.settings import SenderSettings, read  # noqa: PLC0415

        return main(read(SenderSettings))


@click.command()
@_role
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@data_option
def wrapper(log_level: str, parent: int | None, files: tuple[Path, ...], data: Path) -> int:
    """Run the alert programs named in FILES."""
    with in_one_line():
        _begin("wrapper", log_level, parent)
        from tidings.roles.wrapper import main  # noqa: PLC0415
        from tidings.settings import WrapperSettings, read  # noqa: PLC0415

        found = found_at(data)
        settings = read(WrapperSettings, **found)
        if found and settings.state_dir is None:
            settings = settings.model_copy(update={"state_dir": data / "wrapper"})
        return main(settings, files)
