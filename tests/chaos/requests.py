"""The other half of the oracle: which notices the requests on the log must have raised, and which must be over."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tests.chaos.told import Key
from topics.events import AlertCommitted, AlertStarted, Effect, NoticeRequested, NoticeResolved, Record
from topics.fetch import Item
from topics.ids import direct_notice_id

Open = dict[tuple[str, str], list[Key]]


def wanted(items: Iterable[Item]) -> tuple[dict[Key, str], set[Key]]:
    """Of one partition of `notice-requests`: the notices with their titles, and those that are over."""
    runs: dict[tuple[str, int], tuple[int, int, list[AlertCommitted]]] = {}
    open_: Open = {}
    raised: dict[Key, str] = {}
    over: set[Key] = set()
    for r in items:
        match r.event if isinstance(r, Record) else None:
            case AlertStarted() as e:
                runs[e.alert, e.shard] = (r.offset, 0, [])
            case AlertCommitted() as e:
                run, number, parts = runs.get((e.alert, e.shard), (-1, 0, []))
                if (run, number + 1) != (e.run, e.number):
                    continue  # a zombie's, or a repeat
                parts = [*parts, e]
                runs[e.alert, e.shard] = (run, e.number, parts if e.more else [])
                if not e.more:
                    for part in parts:
                        for effect in part.effects:
                            _effect(e.alert, effect, open_, raised, over)
            case NoticeRequested() as e:
                at = (f"by {e.subject}", e.key or "")
                if e.key is None or at not in open_:
                    users = {*e.users, *(lane.value for lane in e.lanes if lane.kind == "recipient")}
                    mine = [(u, direct_notice_id(e.subject, e.request_key, u)) for u in sorted(users)]
                    raised |= dict.fromkeys(mine, json.loads(e.body)["title"])
                    if e.key is not None:
                        open_[at] = mine
            case NoticeResolved() as e:
                over.update(open_.pop((f"by {e.subject}", e.key), []))
    return raised, over


def _effect(alert: str, effect: Effect, open_: Open, raised: dict[Key, str], over: set[Key]) -> None:
    at = (alert, effect.key)
    if effect.op == "resolve":
        over.update(open_.pop(at, []))
    elif effect.op != "update" and (effect.op != "raise" or at not in open_):
        people = {lane.value if lane.kind == "recipient" else f"{lane.channel}:{lane.value}" for lane in effect.lanes}
        mine = [(user, effect.notice_id) for user in sorted(people)]
        raised |= dict.fromkeys(mine, json.loads(effect.body)["notice"]["title"])
        if effect.op == "raise":
            open_[at] = mine
