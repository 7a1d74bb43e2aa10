"""Why somebody was not told: what a request or a commit was to one user, by the fold that made the notices.

Pure: it folds the records of one key of `notice-requests` in their order, with `fan_out.apply` itself, and says what
came of those that are asked about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from projections.fan_out import Audience, Desk, Run, apply, conditions_of, receivers
from projections.outgoing import Refused
from projections.words import clock
from topics.events import (
    AlertCommitted,
    AlertStarted,
    Effect,
    Event,
    NoticeRaised,
    NoticeRequested,
    NoticeResolved,
    Record,
)

NAMED = 10  # of an audience


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one thing that was said means for the user.

    `code`: told (then `notice_id` is theirs), not_in_audience, open_already, not_open, zombie, repeat, no_run, void,
    refused. `audience` are those who were told of it.
    """

    at: int
    partition: int
    offset: int
    event: str
    code: str
    told: str
    notice_id: str | None = None
    audience: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Opened:
    at: int
    offset: int
    audience: Audience


class Inquiry:
    """Asks for `user` about everything that `wanted` says yes to: a commit's effect, or a direct request."""

    def __init__(self, user: str, wanted: Callable[[Record, Effect | None], bool]) -> None:
        self._user, self._wanted = user, wanted
        self._desk = Desk()
        self._opened: dict[tuple[str, str], _Opened] = {}
        self._held: dict[tuple[str, int], list[tuple[Record, Effect]]] = {}

    @property
    def pending(self) -> bool:
        """Whether what is asked about stands in a part of a commit whose last part has not come."""
        return bool(self._held)

    def take(self, record: Record) -> list[Verdict]:
        """Fold the next record of the key; the verdicts on what it says of what is asked about."""
        runs, opened = dict(self._desk.runs), dict(self._opened)
        try:
            outs = [o.event for o in apply(self._desk, record)]
            refused = ""
        except Refused as error:
            outs, refused = [], str(error)
        for at in conditions_of(record):
            if at not in self._desk.conditions:
                self._opened.pop(at, None)
            elif at not in self._opened:
                self._opened[at] = _Opened(record.timestamp, record.offset, self._desk.conditions[at])
        match record.event:
            case AlertStarted(shard=shard) | AlertCommitted(shard=shard) as e:
                return self._chained(record, e, runs.get((e.alert, shard)), opened, refused)
            case NoticeRequested() | NoticeResolved() as e if self._wanted(record, None):
                return [self._direct(record, e, opened, outs, refused)]
        return []

    def _chained(
        self,
        record: Record,
        e: AlertStarted | AlertCommitted,
        run: Run | None,
        opened: dict[tuple[str, str], _Opened],
        refused: str,
    ) -> list[Verdict]:
        at = (e.alert, e.shard)
        if isinstance(e, AlertStarted):
            words = "nobody was told: a new run began before the last part of this commit"
            return [self._verdict(r, "void", words) for r, _ in self._held.pop(at, [])]
        mine = [(record, x) for x in e.effects if self._wanted(record, x)]
        void = _void(e, run) or (("refused", f"it became a dead letter: {refused}") if refused else None)
        if void:
            return [self._verdict(record, *void)] if mine else []
        if e.more:
            self._held[at] = [*self._held.get(at, []), *mine]
            return []
        return [self._effect(r, e.alert, x, opened) for r, x in (*self._held.pop(at, []), *mine)]

    def _effect(self, record: Record, alert: str, x: Effect, opened: dict[tuple[str, str], _Opened]) -> Verdict:
        before = opened.get((f"alert:{alert}", x.key))
        if x.op in ("update", "resolve"):
            if before is None:
                return self._verdict(record, "not_open", f"condition {x.key} of alert {alert} was not open")
            verb = "updated" if x.op == "update" else "resolved"
            return self._among(record, dict(before.audience), f"alert {alert} {verb} {x.key}")
        if x.op == "raise" and before is not None:
            return self._open_already(record, f"condition {x.key} of alert {alert}", before)
        audience = {user: x.notice_id for user, _, _ in receivers(x.lanes)}
        return self._among(record, audience, f"alert {alert} raised {x.key}")

    def _direct(
        self,
        record: Record,
        e: NoticeRequested | NoticeResolved,
        opened: dict[tuple[str, str], _Opened],
        outs: list[Event],
        refused: str,
    ) -> Verdict:
        if refused:
            return self._verdict(record, "refused", f"it became a dead letter: {refused}")
        before = opened.get((f"direct:{e.subject}", e.key)) if e.key is not None else None
        if isinstance(e, NoticeResolved):
            if before is None:
                return self._verdict(record, "not_open", f"condition {e.key} of {e.subject} was not open")
            return self._among(record, dict(before.audience), f"{e.subject} resolved {e.key}")
        if before is not None:
            return self._open_already(record, f"condition {e.key} of {e.subject}", before)
        audience = {o.user: o.notice_id for o in outs if isinstance(o, NoticeRaised)}
        return self._among(record, audience, f"{e.subject} asked for it")

    def _open_already(self, record: Record, what: str, before: _Opened) -> Verdict:
        audience = dict(before.audience)
        since = (
            f"{what} was open already, since {clock(before.at)} ({record.topic}[{record.partition}]@{before.offset})"
        )
        notice_id = audience.get(self._user)
        mine = f"notice {notice_id}" if notice_id else f"a notice that {self._user} did not get"
        return self._verdict(record, "open_already", f"{since}: {mine}", notice_id, tuple(audience))

    def _among(self, record: Record, audience: dict[str, str], what: str) -> Verdict:
        notice_id = audience.get(self._user)
        if notice_id is not None:
            return self._verdict(record, "told", f"{what}, to {self._user} too", notice_id, tuple(audience))
        named = ", ".join(list(audience)[:NAMED]) or "nobody"
        more = f" and {len(audience) - NAMED} more" if len(audience) > NAMED else ""
        return self._verdict(record, "not_in_audience", f"{what}, but to {named}{more} only", None, tuple(audience))

    def _verdict(
        self, record: Record, code: str, told: str, notice_id: str | None = None, audience: tuple[str, ...] = ()
    ) -> Verdict:
        event = type(record.event).__name__
        return Verdict(record.timestamp, record.partition, record.offset, event, code, told, notice_id, audience)


def _void(e: AlertCommitted, run: Run | None) -> tuple[str, str] | None:
    """Why a commit changed nothing; null if it was taken."""
    what = f"commit {e.number} of run {e.run} of alert {e.alert}"
    if run is None or run.run < 0:
        return "no_run", f"{what} changed nothing: no run of this alert was open"
    if run.run != e.run:
        return (
            "zombie",
            f"{what} changed nothing: run {run.run} had begun after it, so it came from a process that was over",
        )
    if e.number <= run.number:
        return "repeat", f"{what} changed nothing: commit {e.number} of this run was taken before"
    return None
