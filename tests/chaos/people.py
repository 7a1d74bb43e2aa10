"""What people, shops and machines do meanwhile: entities change, alerts are raised and resolved, direct notices come,
and readers read them at the very moment when they are about to be forwarded.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from projections.sql.schema import alert_configs, silences
from tests.chaos.evidence import Said
from tests.chaos.shape import Shape
from tests.chaos.site import Site
from topics.catalogue import COMMANDS, CONTROLS, NOTICES
from topics.durations import milliseconds
from topics.events import ConfigProposed, Due, Lane, NoticeMarked, NoticeRaised, PreferencesChanged, Record, SilenceSet
from topics.fetch import LogReader
from topics.ids import direct_notice_id, new_id

SHOP, BATCH = "shop", 8
READERS = tuple(f"u{i}" for i in range(12))
CROWD = tuple(f"p{i}" for i in range(300))  # a fan-out of several transactions; none of them has an address
MUTED, QUIET, HUSHED, GATHERING, RAW = "muted", "quiet", "hushed", "gathering", "raw@example.test"
PEOPLE = (*READERS, *(f"m{i}" for i in range(7)), MUTED, QUIET, HUSHED, GATHERING)
FOREVER_MS = 10**13


def _mail(*after: str, **policy: Any) -> dict[str, Any]:
    return {"steps": [{"channel": "email", "after": a} for a in after], **policy}


@dataclass(frozen=True, slots=True)
class Config:
    """`kind` as in the alert protocol; `weight`: how often it is meant."""

    kind: str
    mailed: tuple[str, ...]
    forward: dict[str, Any]
    weight: int = 1


CONFIGS = {
    "event": Config("event", ("m0", HUSHED), _mail("2s")),
    "chain": Config("condition", ("m1",), _mail("2s", "5s", tell_resolved=True)),
    "throttled": Config("event", ("m2",), _mail("1s", throttle={"max": 2, "per": "6s"}), 2),
    "digested": Config("event", ("m3", "m4"), _mail("1s", digest="3s"), 2),
    "repeated": Config("condition", ("m5",), _mail("1s", repeat="3s", tell_resolved=True)),
    "urgent": Config("event", (MUTED, QUIET), _mail("1s", override=["critical"])),
    "raw": Config("condition", (RAW,), _mail("1s", repeat="4s", tell_resolved=True)),
    "all": Config("condition", ("m6",), _mail("1s", digest="3s", throttle={"max": 1, "per": "5s"}, repeat="4s")),
}
ALERT = """
import json, sys
kinds = {}
for line in sys.stdin:
    told = json.loads(line)
    if told["type"] == "hello":
        print('{"type":"hello","v":1}', flush=True)
        continue
    if told["type"] == "config":
        kinds[told["id"]] = told["value"]["metric"]["kind"] if told["op"] == "set" else None
    if told["type"] == "entity" and told["op"] == "set" and isinstance(told["value"], dict) and "n" in told["value"]:
        value = told["value"]
        name, config = value["n"], value["config"]
        if value["on"]:
            print(json.dumps({"type": "notice", "kind": kinds[config], "key": name, "config": config, "title": name,
                              "severity": value["severity"], "entity": {"type": "host", "id": told["id"]}}))
        else:
            print(json.dumps({"type": "resolve", "key": name}))
    print('{"type":"done"}', flush=True)
"""


def _proposal(name: str, config: Config) -> ConfigProposed:
    """As the gateway would say it, which refuses to repeat more often than once a minute."""
    steps = [(s["channel"] + (f"#{i + 1}" if i else ""), s["after"]) for i, s in enumerate(config.forward["steps"])]
    lanes = [Lane("", "inbox", "recipient", "u0", 0)]
    for entry in config.mailed:
        kind = "address" if "@" in entry else "recipient"
        lanes += [Lane(step, "email", kind, entry, milliseconds(after)) for step, after in steps]
    body = {"id": name, "name": "each", "metric": {"kind": config.kind}, "enabled": True, "forward": config.forward}
    return ConfigProposed(
        event_id=new_id(), producer=SHOP, occurred_at=0, config_id=name, op="create", based_on=None, name="each",
        enabled=True, lanes=tuple(lanes), forward=json.dumps(config.forward), body=json.dumps(body).encode(),
    )  # fmt: skip


class People:
    """Everybody outside; `said` is what they were promised."""

    def __init__(self, site: Site, shape: Shape, rng: random.Random) -> None:
        self._site, self._shape, self._rng = site, shape, rng
        self._dice = random.Random(rng.random())  # the readers' own: what they do hangs on when they see what
        self._room, self._reading = asyncio.Semaphore(10), asyncio.Semaphore(60)
        self.said = Said()

    async def settle_in(self) -> None:
        """Recipients, configs, preferences and the silence that stands all the time."""
        (self._site.folder / "alert.py").write_text(ALERT)
        run = json.dumps([sys.executable, "alert.py"])
        text = f'[[alert]]\nname = "each"\nrun = {run}\nentities = ["host"]\n'
        (self._site.folder / "alerts.toml").write_text(text)
        silence = SilenceSet(
            event_id=new_id(), producer=SHOP, occurred_at=0, silence_id="hush", by=SHOP, alert=None, entity_type=None,
            entity_id=None, user=HUSHED, until=FOREVER_MS, body=b"{}",
        )  # fmt: skip
        await self._site.say(CONTROLS, "hush", silence)
        await self._site.until("the silence is known", self._hushed, self._shape.settle_s)
        people = {u: {"name": u, "addresses": {"email": f"{u}@example.test"}} for u in PEOPLE}
        calls = [self._site.surely("PUT", f"/v1/recipients/{u}", SHOP, p, (200, 201)) for u, p in people.items()]
        await asyncio.gather(*calls)
        await self._prefer(QUIET, {"quiet": [{"from": "00:00", "to": "00:00"}], "time_zone": "Europe/Berlin"})
        await self._prefer(GATHERING, {"channels": {"email": {"digest": "2s"}}})
        for name, config in CONFIGS.items():
            await self._site.say(COMMANDS, name, _proposal(name, config))
        await self._site.until("the configs are known", self._configured, self._shape.settle_s)

    async def _configured(self) -> str:
        missing = CONFIGS.keys() - {
            r.config_id for r in await asyncio.to_thread(self._site.rows, select(alert_configs.c.config_id))
        }
        return f"without {missing}" if missing else ""

    async def _hushed(self) -> str:
        return "" if await asyncio.to_thread(self._site.rows, select(silences.c.silence_id)) else "no silence"

    async def live(self) -> None:
        """Everything in the flow's time, in an order that the seed gives; returns when all of it was accepted."""
        shape, rng = self._shape, self._rng
        names, weights = list(CONFIGS), [c.weight for c in CONFIGS.values()]
        work: list[Coroutine[Any, Any, None]] = [
            *(self._directs(i, rng.random()) for i in range(shape.directs // BATCH)),
            *(self._change(i, rng.choices(names, weights)[0], rng.random()) for i in range(shape.changes)),
            *(self._announce(i) for i in range(shape.announcements)),
            *(self._prefer(MUTED, {"channels": {"email": bool(i % 2)}}) for i in range(10)),
        ]
        rng.shuffle(work)
        async with asyncio.TaskGroup() as all_:
            for index, one in enumerate(work):
                all_.create_task(self._later(index * shape.flow_s / len(work), one))

    async def read_the_rest(self) -> None:
        """Whom nothing reaches for days reads it on the page, so that all comes to rest."""
        for user in (QUIET, MUTED, HUSHED):
            await self._mark(user, "read", up_to=FOREVER_MS)

    # ------------------------------------------------------------------ what is sent
    async def _later(self, seconds: float, one: Coroutine[Any, Any, None]) -> None:
        await asyncio.sleep(seconds)
        async with self._room:
            await one

    async def _meanwhile(self, seconds: float) -> None:
        """A condition lasts a while, and others need not wait for that."""
        self._room.release()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self._room.acquire()

    async def _directs(self, batch: int, dice: float) -> None:
        """BATCH direct notices in one call; a tenth of them are conditions, and fanned out, the others go straight."""
        asked, name = [], f"d{batch}"
        for i in range(batch * BATCH, (batch + 1) * BATCH):
            user = GATHERING if i % 50 == 0 else READERS[i % len(READERS)]
            one = {"to": [user], "title": f"d{i}", "forward_after": self._shape.forward_after_s}
            asked.append((user, one | ({"key": f"k{i}"} if i % 10 == 1 else {})))
        bodies = [one for _, one in asked]
        await self._site.surely("POST", "/v1/notices", SHOP, bodies, (202,), **{"idempotency-key": name})
        for index, (user, _) in enumerate(asked):
            self.said.direct.add((user, direct_notice_id(SHOP, f"{name}/{index}", user)))
        await self._meanwhile(2 * self._shape.forward_after_s * dice)
        for _, one in asked:
            if "key" in one and dice < 0.5:
                await self._site.surely("POST", "/v1/notices/resolve", SHOP, {"key": one["key"]}, (202,))
                self.said.over.add(str(one["title"]))

    async def _announce(self, i: int) -> None:
        body = {"to": list(CROWD), "title": f"a{i}"}
        await self._site.surely("POST", "/v1/notices", SHOP, body, (202,), **{"idempotency-key": f"a{i}"})
        self.said.direct |= {(user, direct_notice_id(SHOP, f"a{i}", user)) for user in CROWD}

    async def _change(self, i: int, config: str, dice: float) -> None:
        meant, name = CONFIGS[config], f"c{i}"
        severity = "critical" if dice < 0.5 else "warning"
        value = {"n": name, "config": config, "on": True, "severity": severity}
        await self._site.surely("PUT", f"/v1/entities/host/h{i}", SHOP, value, (202,))
        for user in ("u0", *meant.mailed):
            self.said.alert.add((f"email:{RAW}" if user == RAW else user, name))
        if meant.kind == "condition":
            await self._meanwhile(dice * 10)
            await self._site.surely("PUT", f"/v1/entities/host/h{i}", SHOP, value | {"on": False}, (202,))
            self.said.over.add(name)

    async def _prefer(self, user: str, wishes: dict[str, Any]) -> None:
        changed = PreferencesChanged(
            event_id=new_id(), producer=user, occurred_at=0, user=user, cmd=new_id(), body=json.dumps(wishes).encode()
        )
        await self._site.say(NOTICES, user, changed)

    # ------------------------------------------------------------------ what is read
    async def read_along(self) -> None:
        """Watch the log and read, snooze or archive about when a forward is due; until cancelled."""
        reader = LogReader(self._site.cluster, self._site.catalogue)
        await reader.start()
        try:
            await reader.seek(dict.fromkeys(reader.spots([NOTICES]), 0))
            async with asyncio.TaskGroup() as readers:
                while True:
                    for record in await reader.records(100):
                        if isinstance(record, Record):
                            self._see(record, readers)
        finally:
            await reader.stop()

    def _see(self, record: Record, readers: asyncio.TaskGroup) -> None:
        e, dice = record.event, self._dice
        if isinstance(e, NoticeRaised) and e.lanes and e.user in PEOPLE:
            chance = dice.random()
            due_s = (record.timestamp + e.lanes[0].after_ms) / 1000 - time.time()
            if e.kind == "direct" and chance < 0.75:
                readers.create_task(self._read(e, due_s + dice.uniform(-0.1, 0.3)))
            elif chance < 0.8:
                readers.create_task(self._read(e, dice.uniform(0, due_s + 1)))
            elif chance < 0.85:
                readers.create_task(self._forged(e, record.timestamp + e.lanes[0].after_ms))
        elif isinstance(e, Due) and e.what == "forward" and e.user in READERS and dice.random() < 0.3:
            readers.create_task(self._mark(e.user, "read", e.notice_id))

    async def _read(self, e: NoticeRaised, after_s: float) -> None:
        dice = self._dice
        await asyncio.sleep(max(0.0, after_s))
        how = dice.choices(("read", "archived", "snoozed", "seen"), (80, 8, 8, 4))[0]
        await self._mark(e.user, how, e.notice_id)
        if dice.random() < 0.1:
            await self._mark(e.user, dice.choice(("unread", "unarchived", "read", "seen")), e.notice_id)

    async def _mark(self, user: str, how: str, *ids: str, up_to: int | None = None) -> None:
        dice, cmd = self._dice, new_id()
        until = int((time.time() + dice.uniform(1.5, 4)) * 1000) if how == "snoozed" else None
        async with self._reading:
            if ids and until is None and dice.random() < 0.1:  # as the page does
                mark = {"ids": list(ids), "as": how, "cmd": cmd}
                await self._site.surely("POST", "/v1/notices/mark", user, mark, (200, 202))
            else:
                event = NoticeMarked(
                    event_id=new_id(), producer=user, occurred_at=0, user=user, cmd=cmd, mark=how, ids=ids,
                    up_to=up_to, until=until,
                )  # fmt: skip
                await self._site.say(NOTICES, user, event)
                if dice.random() < 0.02:
                    await self._site.say(NOTICES, user, event)  # a client that heard no answer
        self.said.marks.add(cmd)

    async def _forged(self, e: NoticeRaised, due_at: int) -> None:
        """Dues that nobody's clock said: before their time, and for a number that nothing waits under."""
        for number, at in ((0, due_at), (7, due_at - FOREVER_MS)):
            forged = Due(
                event_id=new_id(), producer="stranger", occurred_at=0, user=e.user, notice_id=e.notice_id,
                what="forward", step=e.lanes[0].step, number=number, due_at=at,
            )  # fmt: skip
            await self._site.say(NOTICES, e.user, forged)
