"""A scenario: what a program is given over time, and what it is expected to say. One JSON object a line, so that a
config's `metric` stands there as it would on the log; empty lines and lines that begin with `#` are for people.

    {"alert": "overuse", "entities": ["vm"]}                        the first line may name the alert
    {"config": "c1", "value": {"metric": {"high": 90}, "channel": {"inbox": ["7"]}}}
    {"entity": "vm/17", "value": {"cpu": 50}}                       what exists before the program is ready
    {"at": "5m", "entity": "vm/17", "value": {"cpu": 95}}           what changes; "value": null says that it is gone
    {"expect": {"type": "notice", "key": "c1/vm/17"}}               what is said until the next line that is no `expect`
    {"at": "10m"}                                                   time passes
    {"restart": true}                                               kill -9, and a new start from the last commit
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from topics.durations import milliseconds
from topics.events import Cause, Lane
from topics.fetch import Spot
from topics.json_text import compact, dumps, joined, members, parse
from wrapper.chain import Fold, Open
from wrapper.change import RECIPIENT_FIELDS, Change, Config, Entity, Recipient

SPOT = Spot("scenario", 0)
NOBODY = Cause("scenario", SPOT.topic, SPOT.partition, 0)

Offset = Annotated[int, BeforeValidator(milliseconds)]


class ScenarioError(ValueError):
    """The scenario can't be used; the message names the line."""


def _type_and_id(name: str) -> str:
    kind, slash, id_ = name.partition("/")
    if not (kind and slash and id_):
        raise ValueError("an entity is named TYPE/ID, as vm/17")
    return name


class Expected(BaseModel):
    """What the program says next; members that are not named may be anything."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: Literal["notice", "resolve", "error"]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class OpenKey(_Line):
    """What an open condition is about."""

    config: str = Field(min_length=1)
    entity: Annotated[str, AfterValidator(_type_and_id)] | None = None
    severity: Literal["info", "warning", "error", "critical"] = "warning"


class Head(_Line):
    """The alert's name, the entity types that it watches (default: all in the scenario), and when it begins. With
    `open` (by key) or `state` the program goes on from an earlier run.
    """

    alert: str = Field(min_length=1, max_length=128)
    entities: tuple[str, ...] | None = None
    start: AwareDatetime = datetime(2026, 1, 1, tzinfo=UTC)
    open: dict[str, OpenKey] | None = None
    state: Any = None

    def fold(self, state: str | None) -> Fold | None:
        """What the earlier runs amount to; `state` is its raw JSON text."""
        if self.open is None and state is None:
            return None
        keys = {}
        for key, about in (self.open or {}).items():
            kind, _, id_ = (about.entity or "").partition("/")
            keys[key] = Open(f"open:{key}", about.config, kind or None, id_ or None, about.severity)
        return Fold(open=keys, state=None if state == "null" else state)


class Step(_Line):
    """One line after the head; `at` is counted from the start and is that of the line before if it is absent."""

    at: Offset | None = None
    config: str | None = Field(default=None, min_length=1)
    entity: Annotated[str, AfterValidator(_type_and_id)] | None = None
    recipient: str | None = Field(default=None, min_length=1)
    value: dict[str, Any] | None = None
    expect: Expected | None = None
    restart: Literal[True] | None = None


@dataclass(slots=True)
class Moment:
    """At `at` (ms since 1970): a change, a restart, or only the time; then what is expected until the next moment.
    `line` is where it stands in the file; the start at the end of the snapshot, or of the head.
    """

    line: int
    at: int
    change: Change | None = None
    restart: bool = False
    expected: list[Expectation] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Expectation:
    """`members`: raw JSON text by name. `at`: exactly then, if the line says so."""

    line: int
    members: dict[str, str]
    at: int | None = None


@dataclass(slots=True)
class Scenario:
    """`snapshot` is the world before `moments[0]`, which is the program's start."""

    alert: str
    entities: tuple[str, ...]
    start: int
    snapshot: list[Change]
    moments: list[Moment]
    fold: Fold | None


def read(text: str, alert: str) -> Scenario:
    """The scenario in a file's text; `alert` if it names none. ScenarioError."""
    head, state, moments = Head(alert=alert), None, [Moment(0, 0)]
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            if "alert" in (given := members(line)):
                if moments != [Moment(0, 0)]:
                    raise ScenarioError("`alert` belongs to the first line")
                head, state = Head.model_validate(parse(line)), given.get("state")
                moments[0].line = number
            else:
                _add(moments, number, given, Step.model_validate(parse(line)))
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ScenarioError(f"line {number}: {where}: {first['msg']}") from error
        except ValueError as error:
            raise ScenarioError(f"line {number}: {error}") from error
    return _placed(head, moments, head.fold(state))


def _add(moments: list[Moment], number: int, given: dict[str, str], step: Step) -> None:
    last = moments[-1]
    above = max([last.at, *(e.at for e in last.expected if e.at is not None)])
    at = above if step.at is None else step.at
    whats = [name for name in ("config", "entity", "recipient", "expect", "restart") if name in given]
    if len(whats) > 1:
        raise ScenarioError(f"`{whats[0]}` and `{whats[1]}` can't stand in one line")
    if ("value" in given) != (bool(whats) and whats[0] in ("config", "entity", "recipient")):
        raise ScenarioError("`value` goes with `config`, `entity` or `recipient`: an object, or null for gone")
    if at < above:
        raise ScenarioError("`at` lies before the line above; time never goes back")
    if step.expect is not None:
        raw = members(given["expect"])
        last.expected.append(Expectation(number, {n: compact(v) for n, v in raw.items()}, step.at))
        return
    if not whats and step.at is None:
        raise ScenarioError("a line says what changes, what is expected, or at least `at`")
    change = _change(step, given.get("value", "null")) if whats and not step.restart else None
    moments.append(Moment(number, at, change, bool(step.restart)))


def _change(step: Step, raw: str) -> Change:
    text = None if raw == "null" else compact(raw)
    base = Change(SPOT, 0, 0, "nothing")
    if step.config is not None:
        value = config_of(step.config, text)
        reason = "" if value else "deleted" if text is None else "disabled"
        return replace(base, kind="config", id=step.config, value=value, reason=reason)
    if step.entity is not None:
        kind, _, id_ = step.entity.partition("/")
        entity = None if text is None else Entity(text, 0, NOBODY)
        return replace(base, kind="entity", id=id_, entity_type=kind, value=entity)
    told = (
        None if text is None else Recipient(joined({n: v for n, v in members(text).items() if n in RECIPIENT_FIELDS}))
    )
    return replace(base, kind="recipient", id=step.recipient or "", value=told)


def config_of(config_id: str, text: str | None) -> Config | None:
    """A config as its program gets it; null where it is gone or disabled."""
    if text is None or (fields := members(text)).get("enabled") == "false":
        return None
    whole = {"id": dumps(config_id), "metric": "null", "channel": "{}", "enabled": "true"} | fields
    channel = parse(whole["channel"])
    if not isinstance(channel, dict):
        raise ScenarioError("`channel` maps channels to their recipients")
    lanes = tuple(Lane(c, c, "recipient", str(v), 0) for c, named in channel.items() for v in named)
    return Config(joined(whole), whole["metric"], lanes, "", NOBODY)


def _placed(head: Head, moments: list[Moment], fold: Fold | None) -> Scenario:
    """Times of the calendar instead of spans; what stands at 0 before anything is expected is the snapshot."""
    start = int(head.start.timestamp() * 1000)
    first, *rest = moments
    snapshot: list[Change] = []
    while not first.expected and rest and rest[0].at == 0 and rest[0].change is not None:
        begun = rest.pop(0)
        snapshot.append(_at(begun.change, start))
        first.line, first.expected = begun.line, begun.expected
    first.at = start
    for moment in rest:
        moment.at += start
        if moment.change is not None:
            moment.change = _at(moment.change, moment.at)
    for moment in moments:
        moment.expected = [e if e.at is None else replace(e, at=start + e.at) for e in moment.expected]
    types = {c.entity_type for c in _changes(snapshot, rest) if c.kind == "entity"}
    return Scenario(head.alert, head.entities or tuple(sorted(types)), start, snapshot, [first, *rest], fold)


def _changes(snapshot: list[Change], moments: Iterable[Moment]) -> list[Change]:
    return snapshot + [m.change for m in moments if m.change is not None]


def _at(change: Change | None, at: int) -> Change:
    assert change is not None  # noqa: S101 - asked for only where there is one
    value = replace(change.value, at=at) if isinstance(change.value, Entity) else change.value
    return replace(change, timestamp=at, value=value)
