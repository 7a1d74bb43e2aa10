"""The stdin lines of the protocol, built from raw JSON texts: what a configurator or backend wrote reaches the program
untouched.
"""

from __future__ import annotations

from topics.json_text import dumps, joined
from wrapper import protocol
from wrapper.change import Change, Entity

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


def change(seq: int, now: int, it: Change, *, snapshot: bool = False) -> bytes:
    """What became of a config (if it is gone, why: disabled, renamed, deleted), an entity or a recipient."""
    value = it.value
    op = '"delete"' if value is None else '"set","snapshot":true' if snapshot else '"set"'
    kind = f'"entity_type":{dumps(it.entity_type)},' if it.kind == "entity" else ""
    if value is not None:
        at = f'"at":{value.at},' if isinstance(value, Entity) else ""
        rest = f',{at}"value":{value.text}'
    else:
        rest = f',"reason":{dumps(it.reason)}' if it.kind == "config" else ""
    return f'{{"type":"{it.kind}","seq":{seq},"now":{now},"op":{op},{kind}"id":{dumps(it.id)}{rest}}}\n'.encode()


def ready(seq: int, now: int, count: dict[str, int]) -> bytes:
    """The snapshot is complete; `count` its lines by type."""
    return _line("ready", seq=str(seq), now=str(now), count=dumps(count))


def tick(seq: int, now: int) -> bytes:
    """Time passed."""
    return _line("tick", seq=str(seq), now=str(now))


def _line(type: str, **fields: str) -> bytes:
    return joined({"type": dumps(type), **fields}).encode() + b"\n"
