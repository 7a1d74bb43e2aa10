"""What the log means, by search: written apart from the folds and sharing nothing with them but the events."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from topics.catalogue import CONTROLS, DEAD_LETTERS, DELIVERIES, NOTICE_REQUESTS, NOTICES
from topics.dead_letters import DeadLetter
from topics.events import DeliveryRequested, Record
from topics.fetch import Item, Spot
from topics.ids import direct_notice_id

Parts = dict[Spot, list[Item]]


def kind(item: Item) -> str:
    return type(item.event).__name__ if isinstance(item, Record) else "Broken"


def dead(parts: Parts) -> set[tuple[str, int, int]]:
    letters = [i for i in parts[Spot(DEAD_LETTERS, 0)] if isinstance(i, DeadLetter)]
    return {(d.source_topic, d.source_partition, d.source_offset) for d in letters}


def wanted(parts: Parts) -> tuple[set[tuple[str, str]], set[tuple[str, str]]]:
    """(notice, user) pairs that the requests must have raised, and ended."""
    raised: set[tuple[str, str]] = set()
    ended: set[tuple[str, str]] = set()
    for spot, part in parts.items():
        if spot.topic != NOTICE_REQUESTS:
            continue
        newest: dict[str, int] = {}
        counted: dict[str, int] = {}
        live: dict[tuple[str, str], set[tuple[str, str]]] = {}
        for item in part:
            e: Any = item.event if isinstance(item, Record) else None
            match kind(item):
                case "AlertStarted":
                    newest[e.alert], counted[e.alert] = item.offset, 0
                case "AlertCommitted" if newest.get(e.alert) == e.run and counted[e.alert] + 1 == e.number:
                    counted[e.alert] += 1
                    for effect in e.effects:
                        at = (e.alert, effect.key)
                        if effect.op == "raise" and at not in live:
                            live[at] = {(effect.notice_id, lane.value) for lane in effect.lanes}
                            raised |= live[at]
                        elif effect.op == "resolve":
                            ended |= live.pop(at, set())
                case "NoticeRequested" if e.key is None or ("", e.key) not in live:
                    mine = {(f"{e.request_key}", u) for u in e.users}
                    raised |= mine
                    if e.key is not None:
                        live["", e.key] = mine
                case "NoticeResolved":
                    ended |= live.pop(("", e.key), set())
    return raised, ended


class Inbox:
    """What a partition of `notices` means, read once from its beginning, with plain dicts and no row anywhere."""

    def __init__(self, part: list[Item]) -> None:
        self.notices: dict[tuple[str, str], dict[str, Any]] = {}
        self.digests: dict[tuple[str, str], dict[str, Any]] = {}
        self.prefs: dict[str, dict[str, Any]] = {}
        self.severity: dict[tuple[str, str], tuple[tuple[int, int], str]] = {}
        self.decisions: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []  # the question, as it stood, the answer
        self.carried: dict[tuple[Any, ...], int] = {}  # of a digest's answer: how many lanes went with it
        seen: set[tuple[str, ...]] = set()
        for item in part:
            if not isinstance(item, Record) or item.event is None:
                continue
            e: Any = item.event
            name = kind(item)
            if name in ("NoticeMarked", "PreferencesChanged"):
                once: tuple[str, ...] = (e.user, e.cmd)
            else:
                once = (e.event_id,) if name != "Due" else (str(item.offset),)
            if once in seen:
                continue
            seen.add(once)
            step = getattr(self, f"on_{name}", None)
            if step:
                step(item, e)
        for question, (lane, told) in self.open().items():
            self.decisions.append((question, lane, told))

    def open(self) -> dict[tuple[Any, ...], tuple[dict[str, Any], None]]:
        lanes = [(k, name, lane) for k, n in (self.notices | self.digests).items() for name, lane in n["lanes"].items()]
        return {(*k, *name, lane["number"]): (lane, None) for k, name, lane in lanes if lane["state"] == "asked"}

    def view(self) -> dict[tuple[str, str], tuple[Any, ...]]:
        """As the rows say it."""
        found = {}
        for k, n in (self.notices | self.digests).items():
            lanes = tuple(
                (*name, lane["number"], lane["due"], lane["state"])
                for name, lane in sorted(n["lanes"].items())
                if name[0] != "snooze"
            )
            found[k] = n["read"], n["archived"], n["snoozed"], n["ended"], lanes
        return found

    def on_PreferencesChanged(self, _item: Record, e: Any) -> None:  # noqa: N802 - by the event's name
        self.prefs[e.user] = json.loads(e.body)

    def on_NoticeRaised(self, item: Record, e: Any) -> None:  # noqa: N802
        if (e.user, e.notice_id) in self.notices:
            return
        wants = self.prefs.get(e.user, {}).get("channels", {}).get("email")
        lanes = {}
        for lane in e.lanes:
            after = lane.after_ms
            if lane.step == "email" and isinstance(wants, dict) and "after" in wants:
                after = ms(wants["after"])
            lanes["forward", lane.step] = new_lane(item.timestamp + after, lane.channel)
        self.notices[e.user, e.notice_id] = {
            "event": e, "at": item.timestamp, "offset": item.offset, "policy": json.loads(e.forward or "{}"),
            "read": False, "archived": False, "snoozed": None, "ended": False, "stopped": False, "hold": 0,
            "lanes": lanes,
        }  # fmt: skip

    def on_NoticeUpdated(self, _item: Record, e: Any) -> None:  # noqa: N802
        """Also before its NoticeRaised: the larger position of the cause wins."""
        version = (e.cause_offset, e.cause_index)
        if version > self.severity.get((e.user, e.notice_id), (version, ""))[0] or (
            (e.user, e.notice_id) not in self.severity
        ):
            self.severity[e.user, e.notice_id] = (version, e.severity)

    def on_NoticeEnded(self, item: Record, e: Any) -> None:  # noqa: N802
        n = self.notices.get((e.user, e.notice_id))
        if n and not n["ended"]:
            n["ended"] = True
            self.stop(n)
            self.tell_end(n, item)

    def tell_end(self, n: dict[str, Any], item: Record) -> None:
        if not n["ended"] or not n["policy"].get("tell_resolved"):
            return
        for channel in {lane["channel"] for (what, _), lane in n["lanes"].items() if what != "snooze" and lane["told"]}:
            if ("resolved", channel) not in n["lanes"]:
                lane = n["lanes"]["resolved", channel] = new_lane(item.timestamp, channel)
                self.asked(n["event"].user, lane, item.timestamp)

    def asked(self, user: str, lane: dict[str, Any], at: int) -> None:
        lane.update(state="asked", at=at, prefs=self.prefs.get(user, {}))

    def stop(self, n: dict[str, Any]) -> None:
        if not n["stopped"]:
            for (what, _), lane in n["lanes"].items():
                if what in ("forward", "repeat") and lane["state"] in ("waiting", "collected"):
                    lane["state"] = "skipped"
        n["stopped"] = True

    def on_NoticeMarked(self, item: Record, e: Any) -> None:  # noqa: N802
        for (user, nid), n in self.notices.items():
            if user != e.user or not (nid in e.ids if e.up_to is None else n["offset"] < e.up_to):
                continue
            if e.mark == "snoozed" and e.up_to is not None and n["archived"]:
                continue  # what was put away is not woken up with the rest
            match e.mark:
                case "read" | "archived":
                    n[e.mark] = True
                    self.stop(n)
                case "unread":
                    n["read"] = False
                case "unarchived":
                    n["archived"] = False
                case "snoozed":
                    n["snoozed"], n["hold"] = e.until, max(n["hold"], e.until)
                    for (what, _), lane in n["lanes"].items():
                        if what in ("forward", "repeat") and lane["state"] in ("waiting", "collected"):
                            lane.update(state="waiting", number=lane["number"] + 1, due=max(lane["due"], e.until))
                    number = n["lanes"].get(("snooze", ""), {"number": 0})["number"]
                    n["lanes"]["snooze", ""] = new_lane(e.until, "inbox") | {"number": number + 1}

    def on_Due(self, item: Record, e: Any) -> None:  # noqa: N802
        n = (self.notices | self.digests).get((e.user, e.notice_id))
        lane = n["lanes"].get((e.what, e.step)) if n else None
        if (
            not n
            or not lane
            or lane["state"] != "waiting"
            or lane["number"] != e.number
            or item.timestamp < lane["due"]
        ):
            return
        self.asked(e.user, lane, item.timestamp)
        if e.what == "snooze":
            lane["state"], n["snoozed"], n["read"] = "returned", None, False
        if e.what == "digest":
            for member in self.members(e.user, e.notice_id, "collected"):
                member[1]["state"] = "gathered"

    def members(self, user: str, digest: str, state: str) -> list[tuple[dict[str, Any], dict[str, Any], Any]]:
        return [
            (n, lane, name)
            for (u, _), n in self.notices.items()
            for name, lane in n["lanes"].items()
            if u == user and lane["digest"] == digest and lane["state"] == state
        ]

    def on_Decided(self, item: Record, e: Any) -> None:  # noqa: N802
        n = (self.notices | self.digests).get((e.user, e.notice_id))
        lane = n["lanes"].get((e.what, e.step)) if n else None
        if not n or not lane or (lane["state"], lane["number"]) != ("asked", e.number):
            return
        question = (e.user, e.notice_id, e.what, e.step, e.number)
        policy, event = n["policy"], n["event"]
        severity = self.severity.get((e.user, e.notice_id), ((0, 0), event.severity))[1]
        self.decisions.append((question, dict(lane) | {"policy": policy, "severity": severity}, e))
        if e.what == "digest":
            self.settle(question, n, lane, e, item)
        elif e.answer == "deliver":
            lane.update(state="delivered", told=True)
            self.tell_end(n, item)
            self.again(n, e.step, lane)
        elif e.answer == "postpone" and (not n["stopped"] or e.what == "resolved"):
            digest = json.loads(e.body).get("digest")
            if digest and n["hold"] <= e.until and e.what != "resolved":
                self.collect(n, lane, digest, e)
            else:
                lane.update(state="waiting", number=lane["number"] + 1, due=max(e.until, n["hold"]))
        else:
            lane["state"] = "skipped"
            if e.reason == "silenced":
                self.again(n, e.step, lane)

    def collect(self, n: dict[str, Any], lane: dict[str, Any], digest: str, e: Any) -> None:
        made = {"event": n["event"], "policy": {}, "read": False, "archived": False, "snoozed": None, "ended": False}
        d = self.digests.setdefault((e.user, digest), made | {"lanes": {}})
        waits = d["lanes"].setdefault(("digest", lane["channel"]), new_lane(0, lane["channel"]) | {"state": "skipped"})
        if waits["state"] in ("skipped", "delivered"):
            waits.update(state="waiting", number=waits["number"] + 1, due=e.until)
        lane.update(state="collected", number=lane["number"] + 1, due=e.until, digest=digest, told=False)

    def settle(self, question: Any, d: dict[str, Any], waits: dict[str, Any], e: Any, item: Record) -> None:
        gathered = self.members(e.user, e.notice_id, "gathered")
        if e.answer == "postpone":
            waits.update(state="waiting", number=waits["number"] + 1, due=e.until)
            for n, lane, _ in gathered:
                lane["state"] = "skipped" if n["stopped"] else "collected"
            return
        waits["state"] = "delivered" if e.answer == "deliver" else "skipped"
        if e.answer == "deliver":
            self.carried[question] = len({n["event"].notice_id for n, _, _ in gathered})
        for n, lane, (_, step) in gathered:
            lane.update(state=waits["state"], told=lane["told"] or e.answer == "deliver")
            if e.answer == "deliver":
                self.tell_end(n, item)
            if e.answer == "deliver" or e.reason == "silenced":
                self.again(n, step, lane, waits["at"])
        if left := self.members(e.user, e.notice_id, "collected"):
            waits.update(state="waiting", number=waits["number"] + 1, due=min(lane["due"] for _, lane, _ in left))

    def again(self, n: dict[str, Any], step: str, lane: dict[str, Any], at: int | None = None) -> None:
        every, e = n["policy"].get("repeat"), n["event"]
        if every and not n["stopped"] and (e.kind == "condition" or (e.kind == "direct" and e.key)):
            old = n["lanes"].setdefault(("repeat", step), new_lane(0, lane["channel"]) | {"number": -1})
            due = max((lane["at"] if at is None else at) + ms(every), n["hold"])
            old.update(state="waiting", number=old["number"] + 1, due=due)


def new_lane(due: int, channel: str) -> dict[str, Any]:
    return {"due": due, "channel": channel, "number": 0, "state": "waiting", "told": False, "digest": "", "at": 0}


def ms(text: str) -> int:
    return int(text.removesuffix("ms"))


def justified(question: tuple[Any, ...], asked: dict[str, Any], told: Any, silenced: list[Any]) -> None:
    """The answer follows from what stood before its Due, and from what it says that it looked at."""
    user, _, what, step, _ = question
    looked = json.loads(told.body)["looked_at"]
    prefs, policy = asked["prefs"], asked["policy"]
    assert looked["preferences"] == prefs, "decided by other preferences than those before the Due"
    channel = prefs.get("channels", {}).get(asked["channel"])
    wish = channel if isinstance(channel, dict) else {}
    passes = what != "digest" and asked["severity"] in policy.get("override", ())
    off = (channel is False or wish.get("enabled") is False) and not passes
    match told.answer, told.reason:
        case "skip", "silenced":
            assert any(s.silence_id == looked["silence"]["id"] and s.user in (None, user) for s in silenced)
        case "skip", "opt_out":
            assert off
        case "skip", "no_address":
            assert not looked["address"]
        case "skip", "empty":
            assert looked["gathered"] == 0
        case "skip", "not_told":
            assert "sent" not in looked["told"]
        case "postpone", "throttle":
            assert policy.get("throttle") or what == "digest"
        case "postpone", "digest":
            assert told.until == asked["at"] + ms(wish.get("digest") or policy["digest"])
        case "postpone", "delivery_pending":
            assert "sent" not in looked["told"]
        case "postpone", "delay":
            assert told.until > asked["at"]
        case "deliver", _:
            # a digest passes where the worst that it carries does
            assert not off or what == "digest", f"{question}: delivered in spite of an opt-out"
            assert looked["address"]
            assert what in ("digest", "resolved") or not (wish.get("digest") or policy.get("digest"))
            assert what != "resolved" or "sent" in looked["told"]
        case answer:
            raise AssertionError(f"{question} {step}: {answer} is no answer")


def check(parts: Parts, rows: dict[tuple[str, str], tuple[Any, ...]]) -> None:
    """Every rule that the final log and the rows can show."""
    letters, (raised, ended) = dead(parts), wanted(parts)
    seen: Counter[tuple[str, str]] = Counter()
    over: set[tuple[str, str]] = set()
    asked: list[Any] = []
    carried: dict[tuple[Any, ...], int] = {}
    silenced: list[Any] = [i.event for i in parts[Spot(CONTROLS, 0)] if kind(i) == "SilenceSet"]  # type: ignore[union-attr]
    found: dict[tuple[str, str], tuple[Any, ...]] = {}
    for spot, part in parts.items():
        for item in part:
            misplaced = kind(item) == "RecipientChanged" and spot.topic in (NOTICES, NOTICE_REQUESTS)
            assert (
                not (kind(item) == "Broken" and not isinstance(item, DeadLetter)) or (*spot, item.offset) in letters
            ), "dropped in silence"
            assert not misplaced or (*spot, item.offset) in letters, "dropped in silence"
        if spot.topic != NOTICES:
            continue
        box = Inbox(part)
        found |= box.view()
        carried |= box.carried
        for user, nid in box.notices:
            seen[direct(nid), user] += 1
            if box.notices[user, nid]["ended"]:
                over.add((direct(nid), user))
        for question, as_it_stood, told in box.decisions:
            assert told is not None, f"asked, never decided: {question}"
            asked.append((question, told))
            justified(question, as_it_stood, told, silenced)
    assert rows == found, [
        (k, rows.get(k), found.get(k)) for k in rows.keys() | found.keys() if rows.get(k) != found.get(k)
    ][:1]
    assert set(seen) == {(direct_of(n, u), u) for n, u in raised}, "raised what nobody asked for, or lost it"
    assert over == {(direct_of(n, u), u) for n, u in ended}, "ended"
    due = {question for question, told in asked if told.answer == "deliver"}
    sent = {
        i.event.event_id: i.event
        for s, p in parts.items()
        if s.topic == DELIVERIES
        for i in p
        if isinstance(i, Record) and isinstance(i.event, DeliveryRequested)
    }
    assert sorted((e.user, e.notice_id, e.step) for e in sent.values()) == sorted((u, n, s) for u, n, _, s, _ in due), (
        "delivered other than decided"
    )
    counts = sorted(c for e in sent.values() if (c := json.loads(e.body).get("count")))
    assert counts == sorted(carried.values()), "a digest carries what it did not gather"


def direct(notice_id: str) -> str:
    return notice_id


def direct_of(name: str, user: str) -> str:
    """The notice id of what a request named: an alert says it, a direct one is derived."""
    return name if "/" in name else direct_notice_id("shop", name, user)
