"""What a command says when it can't do its work: one line on stderr, and an exit code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click


class Failed(click.ClickException):
    """It could not be done (exit 1)."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """`tidings: …` for each line."""
        for line in self.format_message().splitlines() or [""]:
            click.echo(f"tidings: {line}", file=file, err=True)


class Wrong(Failed):
    """A setting or an argument is wrong (exit 2)."""

    exit_code = 2


@contextmanager
def in_one_line() -> Iterator[None]:
    """Settings that are wrong, a directory that can't be used, a cluster that can't be reached: known mistakes,
    without traceback.
    """
    from tidings.installation import InstallationError  # noqa: PLC0415 - only commands that do something need it
    from tidings.settings_source import SettingsError  # noqa: PLC0415

    try:
        yield
    except SettingsError as error:
        raise Wrong(str(error)) from error
    except InstallationError as error:
        raise Failed(str(error)) from error
    except RuntimeError as error:
        if not _of_kafka(error):
            raise
        raise Failed(_told(error)) from error


def _of_kafka(error: RuntimeError) -> bool:
    """Both client libraries' errors, and ours about the log, are RuntimeErrors."""
    return type(error).__module__.partition(".")[0] in ("kafka", "aiokafka", "topics")


def _told(error: RuntimeError) -> str:
    name = type(error).__name__
    if type(error).__module__.startswith("topics"):
        return str(error)
    if name in ("NoBrokersAvailable", "KafkaConnectionError"):
        return f"no Kafka answers there ({name}): check TIDINGS_KAFKA, and whether the broker runs"
    if name in ("UnknownTopicOrPartitionError", "UnknownTopicOrPartition"):
        return "a topic is missing: run `tidings topics apply`"
    return f"Kafka says no: {name} {error}".strip()
