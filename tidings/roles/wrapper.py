"""The wrapper as a process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server

from tidings.roles.process import log, serve_threads
from tidings.settings import WrapperSettings
from wrapper import main as wrapper
from wrapper.alert_file import AlertFileError
from wrapper.metrics import AlertMetrics
from wrapper.setting import Numbers

USAGE = 2


def main(settings: WrapperSettings, files: Sequence[Path]) -> int:
    """Until a signal; the exit code, 2 for a file that can't be used."""
    numbers: dict[str, Numbers] = {}
    if settings.metrics_port is not None:
        registry = CollectorRegistry()
        registry.register(AlertMetrics(numbers))
        start_http_server(settings.metrics_port, addr="127.0.0.1", registry=registry)

    def work(stop: threading.Event) -> int:
        try:
            return wrapper.run(
                settings.cluster,
                settings.catalogue,
                list(files),
                stop=stop,
                numbers=numbers,
                operators=settings.operators,
                state_dir=settings.state_dir,
            )
        except AlertFileError as error:
            log.error("the alert's file can't be used: %s", error)
            return USAGE

    return serve_threads(work)
