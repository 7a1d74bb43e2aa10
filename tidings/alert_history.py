"""History as an alert program would have been given it: its configs, the entities it watches and the recipients, in the
order of the log's time; and what a program really said then.

Compacted topics keep only the last of a key after a while: what is gone from the log was not there.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from topics.catalogue import ALERT_CONFIGS, NOTICE_REQUESTS, RECIPIENTS, entity_topic
from topics.events import AlertCommitted, Effect
from topics.fetch import Spot
from topics.json_text import dumps, joined
from topics.read import HistoryReader
from topics.selection import EntityName
from wrapper.alert_file import Alert
from wrapper.chain import Chain, Fold, Open, Verdict
from wrapper.change import Change
from wrapper.comparing import expectation, span
from wrapper.opening import meaning
from wrapper.rehearsal import Rehearsal, Said, as_members
from wrapper.scenario import SPOT
from wrapper.world import World


@dataclass(slots=True)
class Past:
    """The world at `since` (ms) as changes, and then what changed, in order. `fold`: what the alert's commits amounted
    to then, null where there were none; `effects`: what they said from then on. `reached`: up to where the inputs had
    been read then. `shards`: into how many it was divided at last.
    """

    since: int
    fold: Fold | None = None
    reached: dict[Spot, int] = field(default_factory=dict)
    shards: int = 1
    effects: list[Effect] = field(default_factory=list)
    snapshot: list[Change] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)


async def past(
    reader: HistoryReader, alert: Alert, since: int, until: int | None, entity: EntityName | None = None
) -> Past:
    """What `alert` was given, and said, from its last commit before `since` to `until` (ms, or now): so a program goes
    on from there exactly as after a restart; from its first one where there is none before. Of the entities only
    `entity`, if it is named.
    """
    topics = [ALERT_CONFIGS, RECIPIENTS, *(entity_topic(t) for t in alert.entities)]
    found, before = await _commits(reader, alert.name, since, until, entity), World()
    async for at, message in reader.merged(reader.spots(topics), until=until):
        change, _ = meaning(await reader.decoded(message), alert.name)
        named = EntityName(change.entity_type, change.id)
        if change.kind == "nothing" or (change.kind == "entity" and entity not in (None, named)):
            continue
        spot = Spot(at.topic, at.partition)
        if at.offset < found.reached[spot] if spot in found.reached else at.time < found.since:
            before.put(change)
        elif change.kind != "config" or change.value is not None or _known(before, found, change.id):
            found.changes.append(replace(change, timestamp=at.time))
    found.snapshot = _as_changes(before, found.since)
    return found


async def _commits(reader: HistoryReader, alert: str, since: int, until: int | None, entity: EntityName | None) -> Past:
    chain, found = Chain(alert, 0), Past(since)
    held: list[Effect] = []
    async for record in reader.of_key(NOTICE_REQUESTS, alert):
        verdict = chain.apply(record)
        if verdict is Verdict.STARTED:
            held = []
        if verdict in (Verdict.HELD, Verdict.ACCEPTED) and isinstance(record.event, AlertCommitted):
            held += record.event.effects
        if verdict is Verdict.ACCEPTED:
            if chain.fold.now < since:
                found.since, found.fold = chain.fold.now, chain.fold.copy()
                found.reached = dict(chain.fold.positions or {})
            elif until is None or chain.fold.now < until:
                if not found.reached:  # the program's very start: the world as it was then is no news
                    found.since = min([chain.fold.now, *(e.now for e in held)])
                    found.reached = dict(chain.fold.positions or {})
                wanted = (e for e in held if entity in (None, EntityName(e.entity_type or "", e.entity_id or "")))
                found.effects += wanted
            held = []
    return found if chain.shards == 1 else Past(since, shards=chain.shards)


def scenario_of(alert: Alert, found: Past, start: str) -> list[str]:
    """The lines of a scenario; `start` is `found.since` in RFC 3339."""
    head = {"alert": dumps(alert.name), "entities": dumps(alert.entities), "start": dumps(start)}
    if found.fold is not None:
        head |= {"open": dumps({k: _about(o) for k, o in found.fold.open.items()})}
        head |= {"state": found.fold.state or "null"}
    lines = [joined(head)]
    lines += [_line(change) for change in found.snapshot]
    steps = [(c.timestamp, 0, i, _line(c, c.timestamp - found.since)) for i, c in enumerate(found.changes)]
    steps += [(e.now, 1, i, expectation(as_members(e), e.now - found.since)) for i, e in enumerate(found.effects)]
    return lines + [line for *_, line in sorted(steps)]


def said(found: Past) -> list[Said]:
    """What was really said then."""
    return [Said(e.now, as_members(e)) for e in found.effects]


def rehearse(alert: Alert, found: Past, until: int) -> list[Said]:
    """What a program says to that history. CannotStart, Broken."""
    with Rehearsal(alert, found.snapshot, found.since, fold=found.fold) as rehearsal:
        heard = rehearsal.until(found.since)
        for change in found.changes:
            heard += rehearsal.until(change.timestamp) + rehearsal.give(change)
        return heard + rehearsal.until(until)


def _known(before: World, found: Past, config_id: str) -> bool:
    """Whether a config that is gone was ever the alert's."""
    return before.config(config_id) is not None or any(c.kind == "config" and c.id == config_id for c in found.changes)


def _as_changes(world: World, at: int) -> list[Change]:
    return [replace(change, spot=SPOT, offset=0, timestamp=at) for change in world.things()]


def _line(change: Change, at: int | None = None) -> str:
    name = f"{change.entity_type}/{change.id}" if change.kind == "entity" else change.id
    when = {} if at is None else {"at": dumps(span(at))}
    return joined(when | {change.kind: dumps(name), "value": change.value.text if change.value else "null"})


def _about(o: Open) -> dict[str, str]:
    entity = {"entity": f"{o.entity_type}/{o.entity_id}"} if o.entity_type else {}
    return {"config": o.config_id, **entity, "severity": o.severity}
