"""Plays a scenario and lays what was said beside what was expected, moment by moment, as text for its author."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from topics.json_text import dumps, joined, parse
from wrapper.alert_file import Alert
from wrapper.change import Change
from wrapper.rehearsal import ANSWER_S, Broken, Rehearsal, Said
from wrapper.scenario import Expectation, Moment, Scenario

WIDTH = 200
WANTED, WANTED_OF_ERRORS = ("type", "key", "severity", "title"), ("type", "config", "text")
RAW = ("metric",)  # compared as text: it has to come out as it went in


@dataclass(frozen=True, slots=True)
class Outcome:
    """`text`: the moments with what was said at each; faults begin with `-` (expected) or `+` (said). `heard`: what was
    said at each moment that was played; `whole`: up to the end.
    """

    text: str
    faults: int
    heard: list[list[Said]]
    whole: bool

    @property
    def said(self) -> int:
        """How many messages."""
        return sum(map(len, self.heard))


def play(alert: Alert, scenario: Scenario, *, answer_s: float = ANSWER_S, kill_each: bool = False) -> Outcome:
    """Play it; with `kill_each` the program is killed and started anew after every moment, which has to change nothing.
    CannotStart; a program that breaks is an outcome.
    """
    heard: list[list[Said]] = [[]]
    broken = ""
    try:
        with Rehearsal(alert, scenario.snapshot, scenario.start, fold=scenario.fold, answer_s=answer_s) as rehearsal:
            for said in _through(rehearsal, scenario, heard, kill_each=kill_each):
                heard[-1].extend(said)
    except Broken as error:
        broken = f"  + {error}\n"
    text, faults = [], int(bool(broken))
    for moment, said in zip(scenario.moments, heard, strict=False):
        lines, wrong = _beside(moment, said, scenario.start)
        text += [_headline(moment, scenario), *lines]
        faults += wrong
    return Outcome("\n".join(text) + "\n" + broken, faults, heard, not broken)


def updated(text: str, scenario: Scenario, heard: list[list[Said]]) -> str:
    """The scenario's text with what was said where it differs from what it expects; all else stays as it is."""
    lines: list[str | None] = list(text.splitlines())
    for moment, said in reversed(list(zip(scenario.moments, heard, strict=False))):
        if not _beside(moment, said, scenario.start)[1]:
            continue
        for expected in moment.expected:
            lines[expected.line - 1] = None
        lines[moment.line : moment.line] = [
            expectation(one.members, None if one.now == moment.at else one.now - scenario.start)
            for one in said
            if not one.fault
        ]
    return "".join(f"{line}\n" for line in lines if line is not None)


def expectation(said: Mapping[str, str], at: int | None) -> str:
    """A scenario's line that expects this, in those members that say the most; exactly `at` (ms after its start)."""
    wanted = WANTED_OF_ERRORS if said["type"] == dumps("error") else WANTED
    told = {n: t for n, t in said.items() if n in wanted}
    return joined(({} if at is None else {"at": dumps(span(at))}) | {"expect": joined(told)})


def _through(
    rehearsal: Rehearsal, scenario: Scenario, heard: list[list[Said]], *, kill_each: bool
) -> Iterator[list[Said]]:
    """Moment after moment; what is yielded belongs to the last list of `heard`."""
    for moment in scenario.moments:
        yield rehearsal.until(moment.at)
        if moment is not scenario.moments[0]:
            heard.append([])
        if moment.restart:
            yield rehearsal.restart()
        elif moment.change is not None:
            yield rehearsal.give(moment.change)
        if kill_each:  # errors are told again, to whom they were told before
            yield [one for one in rehearsal.restart() if one.members["type"] != dumps("error")]
    yield rehearsal.until(max([scenario.moments[-1].at, *(e.at or 0 for e in scenario.moments[-1].expected)]))
    yield rehearsal.finish()


def _beside(moment: Moment, said: list[Said], start: int) -> tuple[list[str], int]:
    """Lines for one moment, and how many of them are faults."""
    lines, wrong, rest = [], 0, list(said)
    for expected in moment.expected:
        at = next((i for i, one in enumerate(rest) if not one.fault and not _differs(expected, one)), None)
        if at is None:
            nearest = rest.pop(0) if rest and rest[0].members.get("type") == expected.members["type"] else None
            lines.append(f"  - line {expected.line}: {_shown(expected.members)}{_when(expected.at, start)}")
            wrong += 1
            if nearest is not None:
                names = ", ".join(_differs(expected, nearest))
                named = {n: nearest.members[n] for n in expected.members if n in nearest.members}
                lines.append(f"  + {_shown(named)}{_when(nearest.now, start)}   (differs in {names})")
            continue
        for early in rest[:at]:
            lines.append(f"  + {_shown(early.members)}{_when(early.now, start)}")
            wrong += 1
        lines.append(f"    {_shown({n: rest[at].members[n] for n in expected.members})}")
        rest = rest[at + 1 :]
    lines += [f"  + {_shown(one.members)}{_when(one.now, start)}" for one in rest]
    return lines, wrong + len(rest)


def _differs(expected: Expectation, said: Said) -> list[str]:
    """The members in which it is not what was expected."""
    names = [n for n, text in expected.members.items() if n not in said.members or not _same(n, text, said.members[n])]
    return names + (["at"] if expected.at is not None and expected.at != said.now else [])


def _same(name: str, expected: str, said: str) -> bool:
    return expected == said if name in RAW else bool(parse(expected) == parse(said))


def _headline(moment: Moment, scenario: Scenario) -> str:
    what = "ready" if moment is scenario.moments[0] else "restart" if moment.restart else _told(moment.change)
    return f"{span(moment.at - scenario.start):>8}  {what}"


def _told(change: Change | None) -> str:
    if change is None:
        return "time passes"
    name = f"{change.entity_type}/{change.id}" if change.kind == "entity" else change.id
    return f"{change.kind} {name} {'gone' if change.value is None else change.value.text}"[:WIDTH]


def _shown(texts: dict[str, str]) -> str:
    told = {n: t for n, t in texts.items() if t not in ("null", '""', "{}")}
    text = joined(told)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _when(at: int | None, start: int) -> str:
    return "" if at is None else f"  at {span(at - start)}"


def span(ms: int) -> str:
    """A span as a scenario has it: 1h30m, 5s, 250ms."""
    parts = []
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"
