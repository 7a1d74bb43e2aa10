"""`tidings rebuild`: the read models anew from the log, while the old ones go on serving."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tidings.cli.failures import in_one_line
from tidings.cli.log_of import data_option
from tidings.cli.read_models import Teller, of_the_database, worker_settings


@click.command()
@click.option(
    "--projection",
    multiple=True,
    help="Only the rows of one topic: alert-configs, recipients, controls, alert-reports, entities or deliveries; "
    "may be repeated. The others decide what is said, so they hold together with what waits to be said, and are "
    "rebuilt only as a whole.  [default: all]",
)
@data_option
def rebuild(projection: tuple[str, ...], data: Path) -> None:
    """Fold the log afresh and swap the result in when it has caught up.

    Says nothing on the log, and the old rows serve until the swap: workers, gateways and senders may run, and begin
    anew after it. Ended at any moment it leaves the old rows as they were; run it again then. SQLite needs room for a
    second copy beside the database, PostgreSQL the right to make a schema.
    """
    with in_one_line(), of_the_database():
        from projections.rebuild import rebuild as run  # noqa: PLC0415 - loads SQLAlchemy
        from projections.sql.swap import ALONE  # noqa: PLC0415

        for name in projection:
            if name not in ALONE:
                raise click.BadParameter(
                    f"{name!r} can't be rebuilt alone: {', '.join(ALONE)} can", param_hint="--projection"
                )
        settings = worker_settings(data)
        teller = Teller("rebuild")
        database = settings.database.get_secret_value()
        done = asyncio.run(run(settings.cluster, settings.catalogue, database, teller, projection))
    what = ", ".join(projection) or "all rows"
    click.echo(
        f"rebuild: {what} from {done.events:,} events in {done.seconds:.1f} s ({done.events / done.seconds:,.0f}/s); "
        f"the rows stood still for {done.stood_s:.1f} s",
        err=True,
    )
