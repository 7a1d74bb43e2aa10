"""`tidings token` signs a token for a person or a program; `tidings token revoke` lets one, or all of somebody's, hold
no longer.
"""

from __future__ import annotations

from pathlib import Path

import click

from tidings.cli.failures import Failed, Wrong, in_one_line
from tidings.cli.log_of import data_option, gateway_at, secret_of


@click.group(invoke_without_command=True)
@click.option("--user", help="A person's id: their inbox, and by default reading all entities.")
@click.option("--service", help="A program's name: by default emitting all entities and sending notices.")
@click.option("--scope", multiple=True, help="What is allowed instead; may be repeated, or comma-separated.")
@click.option("--ttl", default="30d", show_default=True, help="How long it holds: seconds, or 90s, 5m, 12h, 30d.")
@data_option
@click.pass_context
def token(
    context: click.Context, user: str | None, service: str | None, scope: tuple[str, ...], ttl: str, data: Path
) -> None:
    """Sign a token with TIDINGS_SECRET, or with the secret in --data, and print it; on stderr its id.

    Scopes: entities:read:TYPE, entities:write:TYPE (* for all types), notices:write, configs, recipients, audit,
    tokens.
    """
    if context.invoked_subcommand is not None:
        return
    if (user is None) == (service is None):
        raise click.UsageError("Give either --user or --service.")
    with in_one_line():
        from api.access.tokens import is_id  # noqa: PLC0415
        from tidings.settings import ClientSettings, read  # noqa: PLC0415
        from tidings.tokens import SCOPES_OF_A_SERVICE, SCOPES_OF_A_USER, service_token  # noqa: PLC0415
        from topics.durations import milliseconds  # noqa: PLC0415 - `--help` is to be quick
        from topics.ids import new_id  # noqa: PLC0415

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
        allowed = scopes or (SCOPES_OF_A_USER if user else SCOPES_OF_A_SERVICE)
        token_id = new_id()
        click.echo(service_token(secret, name, allowed, seconds, jti=token_id, **read(ClientSettings).claims))
        click.echo(f"id {token_id}: `tidings token revoke {token_id}` ends it before its time", err=True)


@token.command()
@click.argument("token_id", required=False)
@click.option("--user", help="All tokens that this person or program was given until now, instead of one.")
@data_option
def revoke(token_id: str | None, user: str | None, data: Path) -> None:
    """Let the token with this id (`jti`) hold no longer, at any gateway.

    The gateway is the one at TIDINGS_URL, or that of the `tidings up` on --data.
    """
    if (token_id is None) == (user is None):
        raise click.UsageError("Give either a token's id or --user.")
    with in_one_line():
        from tidings.gateway_client import GatewayClient, Refused, Unreachable  # noqa: PLC0415

        url, mine = gateway_at(data, "cli", "tokens")
        with GatewayClient(url, mine) as client:
            try:
                client.call("POST", "/v1/tokens/revoke", {"id": token_id} if token_id else {"user": user})
            except (Refused, Unreachable) as reason:
                raise Failed(str(reason)) from reason
