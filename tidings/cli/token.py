"""`tidings token`: signs a token for a person or a program."""

from __future__ import annotations

from pathlib import Path

import click

from tidings.cli.failures import Wrong, in_one_line
from tidings.cli.log_of import data_option, secret_of


@click.command()
@click.option("--user", help="A person's id: their inbox, and by default reading all entities.")
@click.option("--service", help="A program's name: by default emitting all entities and sending notices.")
@click.option("--scope", multiple=True, help="What is allowed instead; may be repeated, or comma-separated.")
@click.option("--ttl", default="30d", show_default=True, help="How long it holds: seconds, or 90s, 5m, 12h, 30d.")
@data_option
def token(user: str | None, service: str | None, scope: tuple[str, ...], ttl: str, data: Path) -> None:
    """Sign a token with TIDINGS_SECRET, or with the secret in --data, and print it.

    Scopes: entities:read:TYPE, entities:write:TYPE (* for all types), notices:write, configs, recipients, audit.
    """
    if (user is None) == (service is None):
        raise click.UsageError("Give either --user or --service.")
    with in_one_line():
        from api.tokens import is_id  # noqa: PLC0415
        from tidings.tokens import SCOPES_OF_A_SERVICE, SCOPES_OF_A_USER, service_token  # noqa: PLC0415
        from topics.durations import milliseconds  # noqa: PLC0415 - `--help` is to be quick

        name = user or service or ""
        if not is_id(name):
            raise Wrong("an id has 1 to 200 characters and no control characters")
        try:
            seconds = milliseconds(int(ttl) if ttl.isascii() and ttl.isdigit() else ttl) / 1000
        except ValueError as error:
            raise Wrong(f"--ttl: {error}") from error
        secret = secret_of(data)
        if secret is None:
            raise Wrong(
                f"there is no secret to sign with in {data}: set TIDINGS_SECRET, or name the --data of a `tidings up`"
            )
        scopes = [part.strip() for given in scope for part in given.split(",") if part.strip()]
        click.echo(service_token(secret, name, scopes or (SCOPES_OF_A_USER if user else SCOPES_OF_A_SERVICE), seconds))
