"""`tidings verify`: compares the read models with an independent fold of the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tidings.cli.failures import in_one_line
from tidings.cli.log_of import data_option
from tidings.cli.read_models import Teller, of_the_database, worker_settings


@click.command()
@data_option
def verify(data: Path) -> int:
    """Compare the read models with a fresh fold of the log; every difference is a line. Exit code 1 if there is one.

    Reads one snapshot of the rows and folds the log up to exactly their positions, in a file of its own (TMPDIR says
    where): everything may run meanwhile, and nothing is changed. What a worker has decided and not yet read back is no
    word of the log and is not compared.
    """
    with in_one_line(), of_the_database():
        from projections.sql.compare import Difference, shown  # noqa: PLC0415 - loads SQLAlchemy
        from projections.verify import verify as run  # noqa: PLC0415

        def report(difference: Difference) -> None:
            for line in shown([difference]):
                click.echo(line)

        settings = worker_settings(data)
        database = settings.database.get_secret_value()
        found = asyncio.run(run(settings.cluster, settings.catalogue, database, Teller("verify"), report))
    many = f"{found.differences} difference{'' if found.differences == 1 else 's'}"
    cure = ": `tidings rebuild` mends the rows" if found.differences else ""
    click.echo(f"verify: {found.rows:,} rows compared with {found.events:,} events, {many}{cure}", err=True)
    return 1 if found.differences else 0
