"""Where the log or the gateway is that a command speaks to: at TIDINGS_KAFKA or TIDINGS_URL, or that of the
`tidings up` which runs on --data.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidings.cli.failures import Failed, Wrong

if TYPE_CHECKING:
    from tidings.installation import Running
    from tidings.settings import KafkaSettings
    from topics.read import HistoryReader

TOKEN_TTL_S = 300.0
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def data_option(command: F) -> F:
    """--data."""
    kind = click.Path(path_type=Path, file_okay=False)
    return click.option(
        "--data", type=kind, default=Path("data"), show_default=True, help="Directory of a `tidings up`."
    )(command)


def kafka_settings(data: Path) -> KafkaSettings:
    """The log's settings. SettingsError."""
    from tidings.settings import KafkaSettings, read  # noqa: PLC0415 - pydantic takes its time

    return read(KafkaSettings, **found_at(data))


def found_at(data: Path) -> dict[str, Any]:
    """What a `tidings up` on `data` says about its log; nothing where the settings name one. SettingsError."""
    from tidings.settings import UpSettings, read  # noqa: PLC0415 - pydantic takes its time

    if read(UpSettings).kafka is not None or (running := running_at(data)) is None:
        return {}
    types = tuple(running.entity_types)
    return {"kafka": running.bootstrap, "entity_types": types, "partitions": running.partitions}


def running_at(data: Path) -> Running | None:
    """The `tidings up` that runs on `data`; null if none does."""
    from tidings.installation import Installation  # noqa: PLC0415 - only commands that do something need it

    return Installation(data).running()


def secret_of(data: Path) -> str | None:
    """What signs tokens here: TIDINGS_SECRET, or the secret of `data`. SettingsError, InstallationError."""
    from tidings.installation import Installation  # noqa: PLC0415
    from tidings.settings import ClientSettings, read  # noqa: PLC0415

    given = read(ClientSettings).secret
    return given.get_secret_value() if given else Installation(data).secret()


def gateway_at(data: Path, name: str, scope: str) -> tuple[str, str]:
    """The URL of the gateway at TIDINGS_URL, or of the `tidings up` on `data`; and TIDINGS_TOKEN, or a token signed
    here for `name`. Wrong where there is none.
    """
    from tidings.settings import ClientSettings, read  # noqa: PLC0415
    from tidings.tokens import service_token  # noqa: PLC0415

    settings, running = read(ClientSettings), running_at(data)
    url = settings.url or (running.url if running else None)
    if url is None:
        raise Wrong(f"no `tidings up` runs on {data}: name its --data directory, or set TIDINGS_URL to a gateway")
    if settings.token:
        return url, settings.token.get_secret_value()
    secret = secret_of(data)
    if secret is None:
        raise Wrong("there is nothing to sign a token with: set TIDINGS_TOKEN or TIDINGS_SECRET")
    return url, service_token(secret, name, [scope], TOKEN_TTL_S, **settings.claims)


def read_log(settings: KafkaSettings, work: Callable[[HistoryReader], Awaitable[T]]) -> T:
    """What `work` finds with a reader of the log. Failed where a newer Tidings has written; the client's errors."""
    import asyncio  # noqa: PLC0415 - `--help` is to be quick
    import logging  # noqa: PLC0415

    from topics.codec import UnknownSchema  # noqa: PLC0415
    from topics.read import HistoryReader  # noqa: PLC0415

    logging.getLogger("aiokafka").addHandler(logging.NullHandler())  # what goes wrong is told once, in a line

    async def run() -> T:
        reader = HistoryReader(settings.cluster, settings.catalogue)
        try:
            await reader.start()
            return await work(reader)
        finally:
            await reader.stop()

    try:
        return asyncio.run(run())
    except UnknownSchema as error:
        raise Failed(f"{error}: a newer Tidings has written it; read it with that one") from error
