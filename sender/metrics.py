"""What the sender counts, served for Prometheus on a port of its own.

`takeovers` and `late` bound the two windows in which a message can go out twice (rule 8).
"""

from __future__ import annotations

from contextlib import ExitStack

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from sender.settings import SenderSettings


class Metrics:
    """A registry per sender: nothing global."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.results = Counter(
            "tidings_sender_results", "Results of attempts.", ["channel", "result"], registry=self.registry
        )
        self.seconds = Histogram(
            "tidings_sender_attempt_seconds", "Time of one attempt.", ["channel"], registry=self.registry
        )
        self.takeovers = Counter(
            "tidings_sender_takeovers",
            "Attempts after another sender's lease ran out without a result.",
            registry=self.registry,
        )
        self.late = Counter(
            "tidings_sender_late", "Attempts that came back after their lease was over.", registry=self.registry
        )
        self.leases = Gauge("tidings_sender_leases", "Deliveries under this sender's lease.", registry=self.registry)
        self.ready = Gauge("tidings_sender_ready", "1 while the queue is known to be complete.", registry=self.registry)
        self._stack = ExitStack()

    def serve(self, settings: SenderSettings) -> int | None:
        """Answer on the settings' port; the port. OSError where it is taken."""
        if settings.metrics_port is None:
            return None
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, self.registry)
        self._stack.callback(thread.join)
        self._stack.callback(server.server_close)
        self._stack.callback(server.shutdown)
        return int(server.server_port)

    def close(self) -> None:
        """Free the port."""
        self._stack.close()
