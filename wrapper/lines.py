"""The stdin lines of the protocol, built from raw JSON texts: what a configurator or backend wrote reaches the program
untouched.
"""

from __future__ import annotations

from topics.json_text import dumps, joined
from wrapper import protocol
from wrapper.change import Change, Config, Entity, Recipient

VERSION = 1


def hello(
    *, alert: str, shard: int, shards: int, gap: bool, now: int, state: str | None, open_keys: list[str]
) -> bytes:
    """The first line; `state` is raw JSON text."""
    limits = {
        "line": protocol.LINE_BYTES,
        "state": protocol.STATE_BYTES,
        "open": protocol.OPEN_KEYS,
        "key": protocol.KEY_CHARACTERS,
    }
    return _line(
        "hello",
        v=dumps([VERSION]),
        alert=dumps(alert),
        shard=dumps(f"{shard + 1}/{shards}"),
        resumed=dumps(not gap),
        gap=dumps(gap),
        now=dumps(now),
        state=state or "null",
        open=dumps(open_keys),
        must="[]",
        limits=dumps(limits),
    )


def config(seq: int, now: int, id: str, value: Config | None, *, snapshot: bool = False, reason: str = "") -> bytes:
    """A config of this alert, or that it is gone and why (disabled, renamed, deleted)."""
    if value is None:
        return _line("config", seq=str(seq), now=str(now), op='"delete"', id=dumps(id), reason=dumps(reason))
    return _line(
        "config", seq=str(seq), now=str(now), op='"set"', **_snapshot(snapshot), id=dumps(id), value=value.text
    )


def entity(seq: int, now: int, entity_type: str, id: str, value: Entity | None, *, snapshot: bool = False) -> bytes:
    """An entity as it is now, or that it is gone."""
    op = '"delete"' if value is None else '"set","snapshot":true' if snapshot else '"set"'
    rest = "" if value is None else f',"at":{value.at},"value":{value.text}'
    about = f'"entity_type":{dumps(entity_type)},"id":{dumps(id)}'  # by hand, for nearly all lines are such
    return f'{{"type":"entity","seq":{seq},"now":{now},"op":{op},{about}{rest}}}\n'.encode()


def recipient(seq: int, now: int, id: str, value: Recipient | None, *, snapshot: bool = False) -> bytes:
    """What programs may know of a person, or that the person is gone."""
    if value is None:
        return _line("recipient", seq=str(seq), now=str(now), op='"delete"', id=dumps(id))
    return _line(
        "recipient", seq=str(seq), now=str(now), op='"set"', **_snapshot(snapshot), id=dumps(id), value=value.text
    )


def change(seq: int, now: int, it: Change, *, snapshot: bool = False) -> bytes:
    """The line of a change."""
    value = it.value
    if it.kind == "entity" and (value is None or isinstance(value, Entity)):
        return entity(seq, now, it.entity_type, it.id, value, snapshot=snapshot)
    if it.kind == "config" and (value is None or isinstance(value, Config)):
        return config(seq, now, it.id, value, snapshot=snapshot, reason=it.reason)
    if it.kind == "recipient" and (value is None or isinstance(value, Recipient)):
        return recipient(seq, now, it.id, value, snapshot=snapshot)
    msg = f"{it.kind} has no line"
    raise ValueError(msg)


def ready(seq: int, now: int, count: dict[str, int]) -> bytes:
    """The snapshot is complete; `count` its lines by type."""
    return _line("ready", seq=str(seq), now=str(now), count=dumps(count))


def tick(seq: int, now: int) -> bytes:
    """Time passed."""
    return _line("tick", seq=str(seq), now=str(now))


def _snapshot(yes: bool) -> dict[str, str]:  # noqa: FBT001 - one internal flag
    return {"snapshot": "true"} if yes else {}


def _line(type: str, **fields: str) -> bytes:
    return joined({"type": dumps(type), **fields}).encode() + b"\n"
