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
from topics.events import AlertStarted, Record
from topics.fetch import Broken, Spot
from topics.ids import new_id
from wrapper.alert_file import Alert
from wrapper.chain import Chain, Fold, Verdict
from wrapper.checkpoint import Checkpoints
from wrapper.inputs import Inputs
from wrapper.reader import FETCH_WAIT_MS, Reader, Stopped
from wrapper.setting import SHARD, Setting
from wrapper.world import Change, Unreadable, World, change_in, nothing

log = logging.getLogger(__name__)


class WrongShards(RuntimeError):
    """The log says another number of shards than the alert's file."""


@dataclass(slots=True)
class Opened:
    """A run at its beginning; `follow` is where reading goes on."""

    run: int
    fold: Fold
    world: World
    inputs: Inputs
    gap: bool
    follow: dict[Spot, int]


def newest_chain(reader: Reader, setting: Setting) -> Chain:
    """The chain as of the newest whole checkpoint, or its beginning."""
    found = Checkpoints(setting.alert.name, SHARD)
    for record in reader.whole(ALERT_CHECKPOINTS):
        if isinstance(record, Record):
            found.take(record)
    own = setting.own
    chain = found.chain(reader.ends([own])[own])
    chain.upto = max(chain.upto, reader.starts([own])[own])
    return chain


def open_run(reader: Reader, setting: Setting, chain: Chain) -> Opened:
    """Write AlertStarted and prepare everything the program is told first. Stopped, WrongShards, KafkaError."""
    alert, clock = setting.alert, setting.clock
    run = _start(reader, setting, chain)
    fold = chain.fold.copy()
    spots = reader.spots([ALERT_CONFIGS, RECIPIENTS, *(entity_topic(t) for t in alert.entities)])
    world = fold_world(reader, alert, spots, fold.positions or {})
    gap = _gap(reader, setting, spots, fold.positions)
    if gap:
        fold.now = max(fold.now, clock.now())
        fold.positions = reader.ends(spots)
        world = fold_world(reader, alert, spots, fold.positions)
    positions = {s: (fold.positions or {}).get(s, 0) for s in spots}
    fold.positions = dict(positions)
    inputs = Inputs(positions, fold.now)
    return Opened(run, fold, world, inputs, gap, {**positions, setting.own: chain.upto})


def meaning(record: Record | Broken, alert: str) -> tuple[Change, str]:
    """What an input record means to the alert, and why it can't be read (empty if it can)."""
    at = (record.topic, record.partition, record.offset, record.timestamp)
    if isinstance(record, Broken):
        return nothing(at), record.reason
    try:
        return change_in(record, alert), ""
    except Unreadable as error:
        return nothing(at), str(error)


def fold_world(reader: Reader, alert: Alert, spots: list[Spot], upto: dict[Spot, int]) -> World:
    """What exists at these positions."""
    world = World()
    starts, ends = reader.starts(spots), reader.ends(spots)
    for record in reader.range({s: (starts[s], min(upto.get(s, 0), ends[s])) for s in spots}):
        world.put(meaning(record, alert.name)[0])
    return world


def _start(reader: Reader, setting: Setting, chain: Chain) -> int:
    """The run's name: the offset of our AlertStarted as read back."""
    alert, ending = setting.alert, setting.ending
    event = AlertStarted(
        event_id=new_id(),
        producer=setting.outbound.name,
        occurred_at=time.time_ns() // 1000,
        alert=alert.name,
        shard=SHARD,
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
    topics = setting.catalogue.topics()
    unread = {s for s in spots if nexts[s] < ends[s]}
    reader.follow({s: nexts[s] for s in unread})
    while unread:
        for record in reader.poll(FETCH_WAIT_MS):
            spot = Spot(record.topic, record.partition)
            if spot in unread:
                unread.discard(spot)
                oldest = setting.clock.now() - (topics[spot.topic].keep_ms or 0)
                if record.offset != nexts[spot] or record.timestamp < oldest:
                    return True
        if any(reader.position(s) >= ends[s] for s in unread):
            return True
        reader.pause(set(spots) - unread)
    return False
