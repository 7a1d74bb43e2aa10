"""What commands need that work on the database and the log at once: its place, their progress, their mistakes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidings.cli.failures import Failed
from tidings.cli.log_of import found_at, running_at

if TYPE_CHECKING:
    from projections.rebuild import Progress
    from tidings.settings import WorkerSettings

EVERY_S = 2.0


def worker_settings(data: Path) -> WorkerSettings:
    """The worker's settings: TIDINGS_DATABASE and TIDINGS_KAFKA, or those of the `tidings up` that runs on `data`.

    SettingsError.
    """
    from tidings.installation import Installation  # noqa: PLC0415 - only commands that do something need it
    from tidings.settings import UpSettings, WorkerSettings, read  # noqa: PLC0415

    own = read(UpSettings).database is None and running_at(data) is not None
    return read(WorkerSettings, **found_at(data), database=Installation(data).database if own else None)


class Teller:
    """Says on stderr how far a command is, every two seconds."""

    def __init__(self, command: str) -> None:
        self._command, self._begun, self._said = command, time.monotonic(), time.monotonic()

    def __call__(self, progress: Progress) -> None:
        """So far."""
        now = time.monotonic()
        if now - self._said < EVERY_S:
            return
        self._said = now
        share, rate = progress.done / max(1, progress.total), progress.done / (now - self._begun)
        click.echo(
            f"{self._command}: {share:.0%} of {progress.total:,} events, {rate:,.0f}/s, now {progress.topic}", err=True
        )


@contextmanager
def of_the_database() -> Iterator[None]:
    """Known mistakes of a rebuild or a verification, in a line."""
    from projections.rebuild import CannotRebuild  # noqa: PLC0415 - loads SQLAlchemy
    from projections.sql.commit import Bug  # noqa: PLC0415
    from projections.sql.shadow import InTheWay, failure_of  # noqa: PLC0415
    from projections.sql.store import NewerRows  # noqa: PLC0415
    from projections.verify import CannotVerify  # noqa: PLC0415

    try:
        yield
    except (CannotRebuild, CannotVerify, InTheWay, NewerRows) as error:
        raise Failed(str(error)) from error
    except Bug as error:
        raise Failed(f"a record can't be folded ({error}): a worker would end there, too") from error
    except Exception as error:
        if words := failure_of(error):
            raise Failed(f"the database says: {words}") from error
        raise
