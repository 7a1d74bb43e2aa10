"""Operators find every metric in the documentation, and nothing there that is not."""

import re
from pathlib import Path

from api.metrics import Metrics

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(tidings_gateway_\w+)` \| (.*?) \|", re.MULTILINE)


def test_the_table_of_metrics_is_what_a_gateway_serves() -> None:
    metrics = Metrics()
    served = {
        name + ("_total" if found._type == "counter" else ""): list(found._labelnames)
        for found in vars(metrics).values()
        if (name := getattr(found, "_name", None)) is not None
    }
    assert {m.name for m in metrics.registry.collect()} == {name.removesuffix("_total") for name in served}
    told = ROW.findall((ROOT / "docs/operation.md").read_text())
    assert {name: re.findall(r"`(\w+)`", labels) for name, labels in told} == served


def test_metrics_that_are_advised_for_alerts_exist() -> None:
    served = {metric.name for metric in Metrics().registry.collect()}
    alerts = (ROOT / "docs/operation.md").read_text().partition("Worth an alert:")[2].partition("\n## ")[0]
    advised = re.findall(r"tidings_gateway_\w+", alerts)
    assert advised
    assert {re.sub(r"_(total|bucket|count)$", "", name) for name in advised} <= served
