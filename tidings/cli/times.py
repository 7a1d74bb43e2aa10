"""Times as people give them on the command line: RFC 3339, a date, or how long ago (`90s`, `5m`, `2d`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click


class Time(click.ParamType):
    """Milliseconds since 1970 UTC. Without a zone, UTC is meant."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """As click wants it."""
        if isinstance(value, int):
            return value
        from topics.durations import milliseconds  # noqa: PLC0415 - `--help` is to be quick

        try:
            return int(datetime.now(UTC).timestamp() * 1000) - milliseconds(value)
        except ValueError:
            pass
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time: give 2026-11-23T09:00:00Z, 2026-11-23, or how long ago (90s, 5m, 2d)",
                param,
                ctx,
            )
        return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def shown(at: int) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
