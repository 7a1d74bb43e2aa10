"""A conversation of one alert without processes: what is given, what is said, what is committed."""

from __future__ import annotations

import json
from typing import Any

from topics.catalogue import ALERT_CONFIGS, RECIPIENTS
from topics.codec import decode
from topics.events import AlertCommitted, Cause, Lane
from topics.fetch import Spot
from wrapper.chain import Fold, Open
from wrapper.change import Change, Config, Entity
from wrapper.commits import Commits, Sealed
from wrapper.conversation import Conversation
from wrapper.inputs import Inputs
from wrapper.protocol import Rejected, Stray, parse
from wrapper.world import World

CONFIGS, PEOPLE, VMS, OTHER_VMS = (
    Spot(ALERT_CONFIGS, 0),
    Spot(RECIPIENTS, 0),
    Spot("entities.vm", 0),
    Spot("entities.vm", 1),
)
LANES = tuple(
    Lane("s", channel, "recipient", value, 5) for channel, value in (("email", "u1"), ("email", "u2"), ("sms", "u1"))
)


def config(id: str, offset: int, at: int, *, gone: bool = False, metric: str = "{}") -> Change:
    value = Config(
        f'{{"id":"{id}","metric":{metric}}}', metric, LANES, "f", Cause(f"e{offset}", ALERT_CONFIGS, 0, offset)
    )
    return Change(CONFIGS, offset, at, "config", id, value=None if gone else value, reason="deleted" if gone else "")


def vm(id: str, offset: int, at: int, body: str | None = "{}", spot: Spot = VMS) -> Change:
    value = None if body is None else Entity(body, at, Cause(f"v{offset}", spot.topic, spot.partition, offset))
    return Change(spot, offset, at, "entity", id, "vm", value)


class Rig:
    """`configs` and `vms` are there from the start."""

    def __init__(
        self,
        *,
        configs: str = "c",
        vms: str = "",
        gap: bool = False,
        open: dict[str, Open] | None = None,
        **how: Any,
    ) -> None:
        world = World()
        for i, id_ in enumerate(configs):
            world.put(config(id_, i, 1))
        for i, id_ in enumerate(vms):
            world.put(vm(id_, i, 1))
        positions = {CONFIGS: 10, PEOPLE: 0, VMS: 10, OTHER_VMS: 10}
        fold = Fold(open=dict(open or {}), positions=dict(positions), now=1000)
        self.commits = Commits(alert="a", shard=0, run=7, producer="t", base=fold, at=0)
        self.talk = Conversation(
            alert="a",
            shard=0,
            shards=1,
            watched=frozenset({"vm"}),
            fold=fold,
            world=world,
            inputs=Inputs(positions, fold.now),
            gap=gap,
            commits=self.commits,
            **how,
        )

    def hello(self, **fields: Any) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.talk.hello())
        self.say({"type": "hello", "v": 1, **fields})
        return told

    def started(self, **fields: Any) -> Rig:
        """Said hello, and did everything up to `ready`."""
        self.hello(**fields)
        while given := self.given():
            self.done(seq=given[-1]["seq"])
        return self

    def given(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.talk.lines()]

    def say(self, *messages: dict[str, Any]) -> None:
        for fields in messages:
            message = parse(json.dumps(fields).encode())
            assert not isinstance(message, Rejected | Stray), message
            self.talk.heard(message)

    def notice(self, key: str = "k", config: str = "c", **fields: Any) -> None:
        self.say({"type": "notice", "key": key, "config": config, "title": "t", **fields})

    def done(self, **fields: Any) -> None:
        self.say({"type": "done", **fields})

    def change(self, *changes: Change, horizon: int | None = None) -> None:
        for it in changes:
            self.talk.inputs.add(it)
        self.horizon(max(c.timestamp for c in changes) + 1 if horizon is None else horizon)

    def horizon(self, at: int) -> None:
        self.talk.inputs.horizon(at, {})

    def committed(self, at: float = 1) -> list[AlertCommitted]:
        """Made, sent, and read back."""
        out = [event(s) for s in self.talk.commit(at)]
        if out:
            self.commits.read_back(out[-1].number, at)
        return out

    def effects(self, at: float = 1) -> list[tuple[str, str]]:
        return [(e.op, e.key) for commit in self.committed(at) for e in commit.effects]


def event(sealed: Sealed) -> AlertCommitted:
    found = decode(sealed.data)
    assert isinstance(found, AlertCommitted)
    return found
