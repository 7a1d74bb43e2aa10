"""The start of a run, in the only order that is safe: open the run on the log, read the chain up to that record, fold
the world up to the positions of the last commit, and only then look for a gap.

A gap means that records after those positions may have been compacted away: then the world is taken as of now, and the
program is told so.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from topics.catalogue import ALERT_CHECKPOINTS, ALERT_CONFIGS, NOTICE_REQUESTS, RECIPIENTS, entity_topic
from topics.codec import encode
from topics.events import AlertMoved, AlertStarted, Record
from topics.fetch import Broken, Spot
from topics.ids import new_id
from topics.json_text import dumps
from topics.partition import partition_of
from wrapper.chain import Chain, Chains, Fold, Open, Verdict
from wrapper.change import Change, Unreadable, change_in, nothing
from wrapper.checkpoint import Checkpoints
from wrapper.files import fingerprint
from wrapper.inputs import Inputs
from wrapper.reader import FETCH_WAIT_MS, Reader, Stopped
from wrapper.setting import Place, Setting
from wrapper.world import STAMP, Reached, World

log = logging.getLogger(__name__)


class WrongShards(RuntimeError):
    """The log says another number of shards than the alert's file."""


@dataclass(slots=True)
class Opened:
    """A run at its beginning; `follow` is where reading goes on."""

    run: int
    chain: Chain
    fold: Fold
    world: World
    inputs: Inputs
    gap: bool
    follow: dict[Spot, int]


def newest_chain(reader: Reader, setting: Setting) -> Chain:
    """The chain as of the newest whole checkpoint, or its beginning; what was put aside for this program is skipped."""
    found = Checkpoints(setting.alert.name, setting.shard)
    for record in reader.whole(ALERT_CHECKPOINTS):
        if isinstance(record, Record):
            found.take(record)
    setting.skipped.update(found.aside(fingerprint(setting.alert)))
    own = setting.own
    chain = found.chain(reader.ends([own])[own])
    chain.upto = max(chain.upto, reader.starts([own])[own])
    return chain


def open_run(reader: Reader, setting: Setting, chain: Chain, world: World, *, may_move: bool = False) -> Opened:
    """Write AlertStarted and prepare everything the program is told first; `world` may be of any time. `may_move`: if
    the log says another number of shards than the file, the file counts. Stopped, WrongShards, KafkaError.
    """
    alert, clock = setting.alert, setting.clock
    try:
        run = _start(reader, setting, chain)
    except WrongShards:
        if not may_move or setting.shard != 0:
            raise
        _move(setting, chain)
        run = _start(reader, setting, chain)
    if chain.stale:
        chain = _dealt(reader, setting, chain.upto)
    fold = chain.fold.copy()
    spots = _inputs(reader, setting)
    gap = alert.mode == "plain" or _gap(reader, setting, spots, fold.positions)
    if gap:
        fold.now = max(fold.now, clock.now())
        fold.positions = reader.ends(spots)
    positions = {s: (fold.positions or {}).get(s, 0) for s in spots}
    fold_world(reader, setting, world, positions)
    fold.positions = dict(positions)
    inputs = Inputs(positions, fold.now)
    return Opened(run, chain, fold, world, inputs, gap, {**positions, setting.own: chain.upto})


def _inputs(reader: Reader, setting: Setting) -> list[Spot]:
    """All configs and recipients, and of each entity topic the partitions of this shard."""
    shard, shards = setting.shard, setting.alert.shards
    entities = reader.spots(entity_topic(t) for t in setting.alert.entities)
    return reader.spots([ALERT_CONFIGS, RECIPIENTS]) + [s for s in entities if s.partition % shards == shard]


def meaning(record: Record | Broken, alert: str) -> tuple[Change, str]:
    """What an input record means to the alert, and why it can't be read (empty if it can)."""
    if isinstance(record, Broken):
        return nothing(record), record.reason
    try:
        return change_in(record, alert), ""
    except Unreadable as error:
        return nothing(record), str(error)


def fold_world(reader: Reader, setting: Setting, world: World, upto: dict[Spot, int]) -> None:
    """Make `world` what exists at these positions, without what is skipped: from where it was saved, if that is on this
    log and not beyond them; else from the beginning.
    """
    world.back()
    meant = dumps([STAMP, setting.alert.name, sorted(upto), sorted(setting.skipped)])
    if world.meant != meant or not _stands(reader, setting, world, upto):
        world.clear(meant)
    starts, ends = reader.starts(upto), reader.ends(upto)
    nexts = {s: world.reached[s].next if s in world.reached else starts[s] for s in upto}
    for record in reader.range({s: (nexts[s], min(upto[s], ends[s])) for s in upto}):
        change = meaning(record, setting.alert.name)[0]
        world.put(nothing(record) if place_of(record) in setting.skipped else change)
        if world.full:
            world.save()
    for spot, position in upto.items():
        world.reached[spot] = world.reached.get(spot, Reached(0))._replace(next=position)
    world.save()


def _stands(reader: Reader, setting: Setting, world: World, upto: dict[Spot, int]) -> bool:
    """Whether what was read last still stands on this log, and everything after it."""
    reached = world.reached
    starts, ends = reader.starts(upto), reader.ends(upto)
    if any(not starts[s] <= r.place < ends[s] or r.next > upto[s] for s, r in reached.items() if r.next):
        return False
    found = _firsts(reader, setting, {s: r.place for s, r in reached.items() if r.next}, ends)
    if any((record.offset, _id_of(record)) != reached[s][1:] for s, record in found.items()):
        return False
    return not _gap(reader, setting, list(upto), {s: r.next for s, r in reached.items()})


def _id_of(record: Record | Broken) -> str:
    return record.event.event_id if isinstance(record, Record) and record.event else ""


def place_of(record: Record | Broken) -> Place:
    """Where it stands."""
    return Spot(record.topic, record.partition), record.offset


def _move(setting: Setting, chain: Chain) -> None:
    """The alert has as many shards as its file says; all runs end."""
    alert, outbound = setting.alert, setting.outbound
    log.warning("moved alert=%s from_shards=%d to_shards=%d", alert.name, chain.shards, alert.shards)
    event = AlertMoved(
        event_id=new_id(),
        producer=outbound.name,
        occurred_at=time.time_ns() // 1000,
        alert=alert.name,
        shards=alert.shards,
    )
    if not outbound.place(NOTICE_REQUESTS, alert.name, encode(event), give_up=setting.ending.is_set):
        raise Stopped


def _dealt(reader: Reader, setting: Setting, upto: int) -> Chain:
    """This shard's chain up to an offset, from the beginning and with all others: after a move."""
    topics = setting.catalogue.topics()

    def home(key: Open, shards: int) -> int:
        if key.entity_type not in setting.alert.entities or key.entity_id is None:
            return 0
        return partition_of(key.entity_id, topics[entity_topic(key.entity_type)].partitions) % shards

    chains = Chains(setting.alert.name, home)
    for record in reader.range({setting.own: (reader.starts([setting.own])[setting.own], upto)}):
        if isinstance(record, Record):
            chains.apply(record)
    found = chains.of(setting.shard)
    found.upto = upto
    return found


def _start(reader: Reader, setting: Setting, chain: Chain) -> int:
    """The run's name: the offset of our AlertStarted as read back."""
    alert, ending = setting.alert, setting.ending
    event = AlertStarted(
        event_id=new_id(),
        producer=setting.outbound.name,
        occurred_at=time.time_ns() // 1000,
        alert=alert.name,
        shard=setting.shard,
        shards=alert.shards,
        instance=setting.instance,
    )
    if not setting.outbound.place(NOTICE_REQUESTS, alert.name, encode(event), give_up=ending.is_set):
        raise Stopped
    reader.follow({setting.own: chain.upto})
    while not ending.is_set():
        for record in reader.poll(FETCH_WAIT_MS):
            if isinstance(record, Broken):
                log.warning(
                    "unreadable record on the chain alert=%s offset=%d reason=%s",
                    alert.name,
                    record.offset,
                    record.reason,
                )
                continue
            verdict = chain.apply(record)
            if record.event is not None and record.event.event_id == event.event_id:
                if verdict is Verdict.REFUSED:
                    raise WrongShards(f"the log says {chain.shards} shards, the file {alert.shards}")
                return record.offset
    raise Stopped


def _gap(reader: Reader, setting: Setting, spots: list[Spot], positions: dict[Spot, int] | None) -> bool:
    """Whether the record right after some position is gone, or so old that ones after it may be."""
    if positions is None:
        return True
    nexts = {s: positions.get(s, 0) for s in spots}
    starts, ends = reader.starts(spots), reader.ends(spots)
    if any(not starts[s] <= nexts[s] <= ends[s] for s in spots):
        return True
    topics, now = setting.catalogue.topics(), setting.clock.now()
    found = _firsts(reader, setting, {s: nexts[s] for s in spots if nexts[s] < ends[s]}, ends)
    return any(r.offset != nexts[s] or r.timestamp < now - (topics[s.topic].keep_ms or 0) for s, r in found.items())


def _firsts(
    reader: Reader, setting: Setting, froms: dict[Spot, int], ends: dict[Spot, int]
) -> dict[Spot, Record | Broken]:
    """Of each partition the first record from an offset on; one without any, up to its end, gives a later one, or an
    empty one of that end.
    """
    found: dict[Spot, Record | Broken] = {}
    reader.follow(froms)
    while unread := [s for s in froms if s not in found]:
        for record in reader.poll(FETCH_WAIT_MS):
            found.setdefault(Spot(record.topic, record.partition), record)
        for spot in unread:
            if spot not in found and reader.position(spot) >= ends[spot]:
                found[spot] = Broken(*spot, ends[spot], 0, None, b"", "compacted away")
        reader.pause(found)
        if setting.ending.is_set():
            raise Stopped
    return found
