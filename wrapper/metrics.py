"""What a wrapper counts of each alert, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from wrapper.setting import Numbers

COUNTERS = {
    "inputs": "Lines given to the alert program",
    "commits": "Commits on the log",
    "effects": "Notices, updates and resolves in them",
    "rejected": "Lines of the program that could not be taken",
    "dropped": "Effects that changed nothing: raised while open, resolved while closed",
    "restarts": "Starts of the program after its first",
}
GAUGES = {"open": "Conditions that are open", "oldest_undone_s": "Age of the oldest line without its done (s)"}


class AlertMetrics:
    """A Prometheus collector over the running wrapper's numbers, by alert."""

    def __init__(self, numbers: Mapping[str, Numbers]) -> None:
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        """The numbers as they are now."""
        now = dict(self._numbers)
        for family, shown in ((CounterMetricFamily, COUNTERS), (GaugeMetricFamily, GAUGES)):
            for name, text in shown.items():
                metric = family(f"tidings_alert_{name}", text, labels=["alert"])
                for alert, found in now.items():
                    metric.add_metric([alert], getattr(found, name))
                yield metric
        ends = CounterMetricFamily("tidings_alert_ends", "Ends of the program, by cause", labels=["alert", "cause"])
        for alert, found in now.items():
            for cause, count in dict(found.ends).items():
                ends.add_metric([alert, cause], count)
        yield ends
        state = GaugeMetricFamily(
            "tidings_alert_state", "1 for the state that the alert is in", labels=["alert", "state"]
        )
        for alert, found in now.items():
            state.add_metric([alert, found.state], 1)
        yield state
