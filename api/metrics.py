"""What the gateway counts, in Prometheus' format, on a port of its own (loopback by default)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer


FAN_OUT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry a process, made with the application, never at import."""

    def __init__(self) -> None:
        self.registry = r = CollectorRegistry()
        self.ready = Gauge("tidings_gateway_ready", "1: it has caught up with the log", registry=r)
        self.connections = Gauge("tidings_gateway_connections", "Open live connections", ["transport"], registry=r)
        self.refused = Counter(
            "tidings_gateway_refused_connections", "Live connections that were not let in", ["code"], registry=r
        )
        self.closed = Counter("tidings_gateway_closes", "Connections ended from here", ["code"], registry=r)
        self.subscriptions = Gauge("tidings_gateway_subscriptions", "What is watched", ["kind"], registry=r)
        self.frames = Counter("tidings_gateway_frames", "Frames written to live connections", registry=r)
        self.fan_out = Histogram(
            "tidings_gateway_fan_out_seconds",
            "From the log's time of a record until its frames were handed to all who watch",
            ["kind"],
            buckets=FAN_OUT_S,
            registry=r,
        )
        self.cut_off = Counter(
            "tidings_gateway_slow_readers", "Connections cut off because they read too slowly", registry=r
        )
        self.dropped = Counter(
            "tidings_gateway_dropped_bytes", "What waited for slow readers when they were cut off", registry=r
        )
        self.records = Counter("tidings_gateway_records", "Records read from the log", ["topic"], registry=r)
        self.broken = Counter(
            "tidings_gateway_broken_records", "Records that could not be decoded or had no place", ["topic"], registry=r
        )
        self.resumes = Counter("tidings_gateway_resumes", "Subscriptions with `since`", ["kind", "outcome"], registry=r)
        self.lag = Gauge("tidings_gateway_read_seconds", "Age of the newest record when it was read", registry=r)
        self.requests = Histogram("tidings_gateway_request_seconds", "HTTP requests", ["method", "status"], registry=r)
        self.expand_fetches = Counter(
            "tidings_gateway_expand_fetches", "Entities asked of backends", ["backend", "outcome"], registry=r
        )
        self.expand_seconds = Histogram(
            "tidings_gateway_expand_seconds", "Seconds until a backend answered or failed", ["backend"], registry=r
        )
        self.expand_open = Gauge(
            "tidings_gateway_expand_circuit_open", "1: the backend keeps failing, left alone", ["backend"], registry=r
        )
        self.revocations = Counter("tidings_gateway_revocations", "Revocations read from the log", registry=r)
        self._server: tuple[WSGIServer, Thread] | None = None
        self.port: int | None = None

    def serve(self, port: int, host: str = "127.0.0.1") -> None:
        """Serve /metrics on `port` (0: a free one, see `port`). OSError if it is taken."""
        self._server = start_http_server(port, host, self.registry)
        self.port = self._server[0].server_port

    def stop(self) -> None:
        """Stop serving."""
        if self._server:
            server, thread = self._server
            self._server = None
            server.shutdown()
            server.server_close()
            thread.join()
