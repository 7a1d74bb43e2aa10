"""Whatever an entity's body holds, the gateway's memory takes it or leaves it; no body ends the gateway."""

from __future__ import annotations

import orjson
import pytest

from api.live.entities import LiveEntities, strict
from api.metrics import Metrics
from api.settings import Limits
from projections.sql.views.entities import EntityRow

DEEP = "[" * 300 + "]" * 300


@pytest.mark.parametrize(
    "text",
    [
        f'{{"a":1{"0" * 400}}}',
        f'{{"a":-1{"0" * 400}}}',
        '{"a":1e999,"b":-1e999}',
        '{"a":"\\ud800","\\udc00":1}',
        f'{{"a":"\\ud800","b":{DEEP}}}',
        f'{{"a":1{"0" * 400},"b":{DEEP}}}',
        DEEP,
        "5",
        '{"a":"x\\u0000y"}',
    ],
)
def test_a_body_becomes_json_that_every_browser_reads(text: str) -> None:
    value = orjson.loads(strict(text))
    assert isinstance(value, dict)


def test_a_row_that_cannot_be_mended_is_left_out_and_counted() -> None:
    metrics = Metrics()
    live = LiveEntities("vm", Limits(), lambda: "", metrics)
    deep = '{"a":' + "[" * 5_000 + "]" * 5_000 + "}"
    live.begin([EntityRow("deep", 0, 0, 1, 0, deep), EntityRow("good", 0, 1, 1, 0, "{}")], {0: 2})
    assert list(live.entities) == ["good"]
    assert metrics.registry.get_sample_value("tidings_gateway_broken_records_total", {"topic": "entities.vm"}) == 1
