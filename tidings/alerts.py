"""For alert programs in Python, if you like: the loop of the alert protocol, so that only the question is left.

    from tidings.alerts import Pair, run

    def check(pair):
        cpu = pair.entity["cpu"]
        if cpu > pair.metric["high"]:
            return {"title": f"cpu of {pair.entity['name']} is {cpu}%"}
        return pair.as_before if cpu > pair.metric["low"] else None

    run(check)

Nothing but the standard library: a copy of this file beside a program does as well.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final


class _AsBefore:
    """What `check` returns to say nothing new."""


AS_BEFORE: Final = _AsBefore()


@dataclass(slots=True)
class Pair:
    """One config and one entity, as `check` sees them. `now` in ms since 1970; `opened`: a notice stands; `memory` is
    the pair's own, survives restarts, and is kept while there is something in it.
    """

    config_id: str
    metric: Any
    type: str
    id: str
    entity: dict[str, Any]
    now: int
    opened: bool
    memory: dict[str, Any] = field(default_factory=dict)
    as_before: _AsBefore = AS_BEFORE


# The notice's members (title, text, severity, link, data, …) while the condition stands, None when it does not.
Check = Callable[[Pair], dict[str, Any] | _AsBefore | None]


def run(check: Check, *, tick_s: float = 0) -> None:
    """Answer every line until the end of input. `tick_s`: `check` is asked that often, too, about pairs that have
    something in their `memory`. An exception in `check` is told to the config's author; the pair stays as it is.
    """
    program = _Program(check)
    for text in sys.stdin:
        line = json.loads(text)
        if line["type"] == "hello":
            program.begin(line)
            _say(type="hello", v=1, wants=["config", "entity"], tick_s=tick_s)
        else:
            program.take(line)


class _Program:
    def __init__(self, check: Check) -> None:
        self._check = check
        self._metrics: dict[str, Any] = {}
        self._entities: dict[tuple[str, str], dict[str, Any]] = {}
        self._open: set[str] = set()
        self._memory: dict[str, dict[str, Any]] = {}
        self._resumed = False

    def begin(self, hello: dict[str, Any]) -> None:
        self._open, self._memory = set(hello["open"]), hello["state"] or {}
        self._resumed = hello["resumed"]

    def take(self, line: dict[str, Any]) -> None:
        before = json.dumps(self._memory)
        match line["type"]:
            case "config":
                self._metrics.pop(line["id"], None)
                if line["op"] == "set":
                    self._metrics[line["id"]] = line["value"].get("metric")
                pairs = [(line["id"], e) for e in self._entities]
            case "entity":
                entity = line["entity_type"], line["id"]
                self._entities.pop(entity, None)
                if line["op"] == "set":
                    self._entities[entity] = line["value"]
                pairs = [(c, entity) for c in self._metrics]
            case "ready" if not self._resumed:  # after a restart the world is no news
                pairs = [(c, e) for c in self._metrics for e in self._entities]
            case "tick":
                pairs = [(c, e) for c in self._metrics for e in self._entities if _key(c, e) in self._memory]
            case _:
                pairs = []
        if not line.get("snapshot"):  # the world at the start is only remembered, until `ready`
            for config, entity in pairs:
                self._ask(line["now"], config, entity)
        changed = json.dumps(self._memory) != before
        _say(type="done", **({"state": self._memory} if changed else {}))

    def _ask(self, now: int, config: str, entity: tuple[str, str]) -> None:
        key = _key(config, entity)
        if config not in self._metrics or entity not in self._entities:  # what is gone, Tidings resolves
            self._open.discard(key)
            self._memory.pop(key, None)
            return
        memory = self._memory.pop(key, {})
        pair = Pair(config, self._metrics[config], *entity, self._entities[entity], now, key in self._open, memory)
        try:
            told = self._check(pair)
        except Exception as error:  # noqa: BLE001 - a program that stops at what somebody typed would stop at it for ever
            _say(type="error", config=config, text=f"{'/'.join(entity)}: {type(error).__name__}: {error}")
            told = pair.as_before
        if pair.memory:
            self._memory[key] = pair.memory
        if isinstance(told, dict) and key not in self._open:
            self._open.add(key)
            about = {"type": entity[0], "id": entity[1]}
            _say(**({"severity": "warning"} | told), type="notice", key=key, config=config, entity=about)
        elif told is None and key in self._open:
            self._open.discard(key)
            _say(type="resolve", key=key)


def _key(config: str, entity: tuple[str, str]) -> str:
    return f"{config}/{entity[0]}/{entity[1]}"


def _say(**message: Any) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()
