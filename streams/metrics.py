"""What a worker counts, for Prometheus, on a loopback port of its own."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, start_http_server

FOLDED = Counter("tidings_worker_records_folded", "Records folded into rows", ["topic"])
LAG = Gauge("tidings_worker_lag_records", "Records on the log that are not folded yet", ["topic", "partition"])
READY = Gauge("tidings_worker_ready", "1 when the start is over and no schema is waited for")


def serve(port: int) -> None:
    """Answer GET /metrics on 127.0.0.1:`port`."""
    start_http_server(port, addr="127.0.0.1")
