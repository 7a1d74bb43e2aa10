"""At a `done`: from what the program printed to the effects of a commit.

The world and the fold move first by the acknowledged lines; then each message is judged by the config as of those
lines; then the orphans, open keys whose config or entity is gone, are resolved. Pure but for the fold and the world,
which it changes; it sees no clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from topics.events import Effect, Lane
from topics.fetch import Spot
from topics.json_text import dumps, joined
from wrapper.chain import Fold, Open
from wrapper.change import Change, Config, Entity
from wrapper.protocol import OPEN_KEYS, Notice, Resolve
from wrapper.world import World

ENTITY_BYTES = 16 * 1024


@dataclass(slots=True)
class Line:
    """What one stdin line stood for: a change, a tick, or a part of the opening. `seq` 0: the positions move, but
    nobody was told. `at`: where the record stands that it tells of.
    """

    seq: int
    now: int
    change: Change | None = None
    tick: bool = False
    at: tuple[Spot, int] | None = None

    @property
    def is_input(self) -> bool:
        """Whether its `done` moves the run on."""
        return self.tick or self.change is not None


@dataclass(slots=True)
class Settled:
    """`effects` have no notice id yet: it comes from the commit's number. `refused`: (message, reason, detail);
    `dropped` are counts.
    """

    effects: list[Effect] = field(default_factory=list)
    refused: list[tuple[Notice | Resolve, str, str]] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def settle(
    fold: Fold,
    world: World,
    watched: frozenset[str],
    lines: Iterable[Line],
    said: Sequence[Notice | Resolve],
    *,
    all_orphans: bool = False,
) -> Settled:
    """Take `lines` and `said` in. `watched` are the entity types whose absence means gone; `all_orphans` looks at every
    open key.
    """
    out = Settled()
    gone: set[tuple[str, str]] = set()
    for line in lines:
        if line.change is not None:
            if line.change.value is None and line.change.kind in ("config", "entity"):
                gone.add((line.change.entity_type, line.change.id))
            world.put(line.change)
            assert fold.positions is not None  # noqa: S101 - a run begins with positions
            fold.positions[line.change.spot] = line.change.offset + 1
        fold.now = max(fold.now, line.now)
    raised = {m.key for m in said if isinstance(m, Notice)}
    for message in said:
        _take(out, fold, world, message)
    suspects: Iterable[str] = raised & fold.open.keys() if raised else ()
    if gone or all_orphans:
        suspects = [k for k, o in fold.open.items() if all_orphans or k in raised or _about(o) & gone]
    for key in sorted(orphans(fold, world, watched, suspects)):
        _resolve(out, fold, world, key, "null")
        out.dropped["orphans"] += 1
    return out


def orphans(fold: Fold, world: World, watched: frozenset[str], keys: Iterable[str]) -> list[str]:
    """Those of `keys` (open ones) whose config or entity is not in the world."""
    return [k for k in keys if not _alive(fold, world, watched, k)]


def _about(key: Open) -> set[tuple[str, str]]:
    return {("", key.config_id), (key.entity_type or "", key.entity_id or "")}


def _alive(fold: Fold, world: World, watched: frozenset[str], key: str) -> bool:
    about = fold.open[key]
    if world.config(about.config_id) is None:
        return False
    if about.entity_type is None or about.entity_id is None or about.entity_type not in watched:
        return True
    return world.entity(about.entity_type, about.entity_id) is not None


def _take(out: Settled, fold: Fold, world: World, message: Notice | Resolve) -> None:
    if isinstance(message, Resolve):
        if message.key in fold.open:
            _resolve(out, fold, world, message.key, message.data)
        else:
            out.dropped["resolve of a closed key"] += 1
        return
    config = world.config(message.config)
    if config is None:
        out.refused.append((message, "unknown_config", f"no enabled config {message.config!r} of this alert"))
        return
    if message.kind == "event":
        if fold.remembers(message.key, fold.now):
            out.dropped["event said before"] += 1
            return
        op = "event"
    elif message.key in fold.open:
        if not message.update:
            out.dropped["raise of an open key"] += 1
            return
        op = "update"
        config = world.config(fold.open[message.key].config_id) or config
    elif len(fold.open) >= OPEN_KEYS:
        out.refused.append((message, "limit", f"{OPEN_KEYS} conditions are open"))
        return
    else:
        op = "raise"
    if op != "update" and message.to is not None and config.lanes and not narrowed(config.lanes, message.to):
        out.refused.append((message, "bad_field", "to: names nobody whom the config names"))
        return
    _add(out, fold, _notice(fold, world, config, message, op))


def _notice(fold: Fold, world: World, config: Config, message: Notice, op: str) -> Effect:
    ref = message.entity
    kind, id_ = (ref.type, ref.id) if ref else (None, None)
    about = Open("", message.config, kind, id_, message.severity or "warning")
    if op == "update":  # who is told stays as it was; what it is about too
        was = fold.open[message.key]
        about = replace(was, severity=message.severity or was.severity)
    notice = {
        "title": dumps(message.title),
        "text": dumps(message.text),
        "link": dumps(message.link),
        "data": message.data,
        "metric": config.metric,
    }
    entity = world.entity(ref.type, ref.id) if ref else None
    effect = _effect(fold, op, message.key, about, notice, config, entity)
    return replace(effect, lanes=narrowed(config.lanes, message.to), forward=config.forward)


def _resolve(out: Settled, fold: Fold, world: World, key: str, data: str) -> None:
    was = fold.open[key]
    config = world.config(was.config_id)
    entity = world.entity(was.entity_type or "", was.entity_id or "")
    _add(out, fold, _effect(fold, "resolve", key, was, {"data": data}, config, entity))


def _effect(
    fold: Fold, op: str, key: str, about: Open, notice: dict[str, str], config: Config | None, entity: Entity | None
) -> Effect:
    """Told to nobody yet."""
    return Effect(
        op=op,
        key=key,
        notice_id="",
        now=fold.now,
        config_id=about.config_id,
        entity_type=about.entity_type,
        entity_id=about.entity_id,
        severity=about.severity,
        lanes=(),
        forward="",
        caused_by=tuple(thing.cause for thing in (config, entity) if thing is not None),
        body_key=None,
        body=_body(notice, config, entity),
    )


def _add(out: Settled, fold: Fold, effect: Effect) -> None:
    fold.apply(effect)
    out.effects.append(effect)


def narrowed(lanes: tuple[Lane, ...], to: dict[str, list[str]] | None) -> tuple[Lane, ...]:
    """The config's lanes that `to` (channel to values) names too: it may never add one."""
    return lanes if to is None else tuple(lane for lane in lanes if lane.value in to.get(lane.channel, ()))


def _body(notice: dict[str, str], config: Config | None, entity: Entity | None) -> bytes:
    parts = {"notice": joined(notice)}
    if config is not None:
        parts["config"] = config.text
    if entity is not None and len(entity.text.encode()) <= ENTITY_BYTES:
        parts["entity"] = entity.text
    return joined(parts).encode()
