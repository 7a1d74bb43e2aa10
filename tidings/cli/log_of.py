"""Where the log is that a command speaks to: at TIDINGS_KAFKA, or that of the `tidings up` which runs on --data."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tidings.cli.failures import Failed

if TYPE_CHECKING:
    from tidings.installation import Running
    from tidings.settings import KafkaSettings
    from topics.read import HistoryReader

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
