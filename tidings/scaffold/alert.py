#!/usr/bin/env python3
"""Raises a notice while a field of an entity is above `high`; replace `check` by what your alert is about."""

import json
import sys

limits = {}  # config id -> its metric
entities = {}  # (type, id) -> the entity
opened = set()  # keys of the notices that are open: Tidings hands them back after a restart


def say(**message):
    """One line to Tidings. Flushed: a line that stays in the buffer was never said."""
    print(json.dumps(message), flush=True)


def check(config, kind, entity):
    """Say what is new about one pair of a config and an entity."""
    key = f"{config}/{kind}/{entity}"
    metric, body = limits[config], entities[kind, entity]
    value, high = body.get(metric.get("field")), metric.get("high")
    over = isinstance(value, int | float) and isinstance(high, int | float) and value > high
    if over and key not in opened:
        opened.add(key)
        title = f"{metric['field']} of {entity} is {value}"
        say(type="notice", key=key, config=config, entity={"type": kind, "id": entity}, title=title, severity="warning")
    elif not over and key in opened:
        opened.discard(key)
        say(type="resolve", key=key)


for text in sys.stdin:
    line = json.loads(text)
    if line["type"] == "hello":
        opened.update(line["open"])
        say(type="hello", v=1, wants=["config", "entity"])
        continue
    if line["type"] == "config":
        limits.pop(line["id"], None)
        if line["op"] == "set":
            metric = line["value"]["metric"]
            limits[line["id"]] = metric if isinstance(metric, dict) else {}
    elif line["type"] == "entity":
        entities.pop((line["entity_type"], line["id"]), None)
        if line["op"] == "set":
            entities[line["entity_type"], line["id"]] = line["value"]
    if not line.get("snapshot"):  # the world at the start is only remembered, until `ready`
        for config in limits:
            for kind, entity in entities:
                check(config, kind, entity)
        opened &= {f"{c}/{kind}/{e}" for c in limits for kind, e in entities}  # what is gone, Tidings resolves
    say(type="done")  # only now does Tidings count what was said
