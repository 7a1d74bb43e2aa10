#!/usr/bin/env python3
"""Resource overuse: raise when a field stays above `high` for `for_s` seconds, resolve when it falls below `low`.

An alert config for it:  {"name": "overuse", "channel": {"inbox": ["u1"]},
                          "metric": {"field": "cpu", "high": 90, "low": 70, "for_s": 5}}
It looks at any entity whose body has that field as a number:  {"name": "web-1", "cpu": 95.5}
"""

import json
import sys
from typing import Any
from urllib.parse import quote, unquote

metrics: dict[str, tuple[str, float, float, float]] = {}  # config id -> field, high, low, for_s
entities: dict[tuple[str, str], dict[str, Any]] = {}  # (type, id) -> the entity
opened: set[str] = set()  # keys of the notices that are open: Tidings hands them back after a restart
since: dict[str, int] = {}  # key -> when it went over (ms): the only state that has to survive a restart


def say(**message: object) -> None:
    """One line to Tidings. Flushed: a line that stays in the buffer was never said."""
    print(json.dumps(message), flush=True)


def is_number(value: object) -> bool:
    """JSON's true and false are ints to Python, but no measurements."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_config(config_id: str, value: dict[str, Any]) -> None:
    """Take a config in, or tell its author what is wrong. Never crash on what somebody typed."""
    metric = value.get("metric")
    metric = metric if isinstance(metric, dict) else {}
    field, high = metric.get("field"), metric.get("high")
    low, for_s = metric.get("low", high), metric.get("for_s", 0)
    if isinstance(field, str) and is_number(high) and is_number(low) and is_number(for_s):
        metrics[config_id] = field, high, low, for_s
    else:
        example = '{"field": "cpu", "high": 90, "low": 70, "for_s": 5}'
        say(type="error", config=config_id, text=f"metric has to be like {example}; low and for_s may be left out")


def check(now: int, config_id: str, entity_type: str, entity_id: str) -> None:
    """Look at one pair of a config and an entity, and say what is new about it."""
    key = f"{quote(config_id, safe='')}/{entity_type}/{entity_id}"  # quoted, so that it can be taken apart again
    field, high, low, for_s = metrics.get(config_id, ("", 0, 0, 0))
    entity = entities.get((entity_type, entity_id), {})
    value = entity.get(field)

    over = is_number(value) and value > high
    under = not is_number(value) or value < low  # also when the config or the entity is gone
    if not over:
        since.pop(key, None)

    if key in opened and under:
        opened.discard(key)
        say(type="resolve", key=key, data={"value": value})
    elif key not in opened and over and now - since.setdefault(key, now) >= for_s * 1000:
        del since[key]
        opened.add(key)
        say(
            type="notice",
            key=key,
            config=config_id,
            entity={"type": entity_type, "id": entity_id},
            severity="warning",
            title=f"{field} of {entity.get('name', entity_id)} is {value}%"[:300],
            text=f"above {high}% for {for_s} s",
            data={"field": field, "value": value},
        )


def remember(line: dict[str, Any]) -> None:
    """Keep the newest version of a config or an entity, or forget it."""
    if line["type"] == "config":
        metrics.pop(line["id"], None)
        if line["op"] == "set":
            read_config(line["id"], line["value"])
    elif line["type"] == "entity":
        entities.pop((line["entity_type"], line["id"]), None)
        if line["op"] == "set":
            entities[line["entity_type"], line["id"]] = line["value"]


def decide(line: dict[str, Any], *, resumed: bool) -> None:
    """Look at what this line may have changed, never at the whole world."""
    now = line["now"]
    match line["type"]:
        case "entity":
            pairs = [(config_id, line["entity_type"], line["id"]) for config_id in metrics]
        case "config":
            pairs = [(line["id"], *entity) for entity in entities]
        case "ready" if not resumed:  # after a restart nothing is news
            pairs = [(config_id, *entity) for config_id in metrics for entity in entities]
        case "tick":
            keys = [key.split("/", 2) for key in since]  # only these have something to wait for
            pairs = [(unquote(config_id), *entity) for config_id, *entity in keys]
        case _:
            pairs = []
    for pair in pairs:
        check(now, *pair)


def main() -> None:
    """Answer every line with `done`: only then does Tidings count what was said."""
    resumed = False
    for text in sys.stdin:
        line = json.loads(text)
        if line["type"] == "hello":
            resumed = line["resumed"]
            opened.update(line["open"])
            since.update(line["state"] or {})
            say(type="hello", v=1, tick_s=1, wants=["config", "entity"])
            continue

        before = dict(since)
        remember(line)
        if not line.get("snapshot"):  # the world at the start is only remembered, until `ready`
            decide(line, resumed=resumed)
        say(type="done", **({"state": since} if since != before else {}))


if __name__ == "__main__":
    main()
