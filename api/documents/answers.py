"""What HTTP answers hold, as types: nothing is built from them, for most answers are joined from texts that came from
the log; /openapi.json is made from them, and tests hold every answer against that.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic takes no other before Python 3.12

from api.notices.direct import EntityRef
from api.notices.lanes import Forward, Severity
from api.preferences import ChannelPreference, Quiet

State = Literal["open", "all", "unread", "read", "archived", "snoozed"]


@with_config(ConfigDict(extra="allow"))
class Refusal(TypedDict):
    """A refusal as problem details (RFC 9457); `code` is stable, `todo` says what to do."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    todo: str


class Health(TypedDict):
    """The process lives."""

    status: Literal["ok"]


class Readiness(TypedDict):
    """Whether requests are served from what is current, and what is waited for if not."""

    ready: bool
    waiting_for: list[str]


class Me(TypedDict):
    """Whoever the token is of."""

    user: str
    scopes: list[str]
    entity_types: list[str]
    demo: bool


class Position(TypedDict):
    """`position` names what was written: pass it as `at_least`."""

    position: str


# ---- entities
class Entity(TypedDict):
    """An entity as it stands."""

    type: str
    id: str
    version: int
    at: str
    entity: dict[str, Any]


class OneEntity(Entity):
    """And the position at which it was read."""

    position: str


class EntityPage(TypedDict):
    """`next` is the cursor of the page that follows."""

    items: list[Entity]
    next: str | None
    position: str


class Written(TypedDict):
    """A change is on the log."""

    event_id: str
    position: str


class Line(TypedDict):
    """What became of one line; `error` if it was refused."""

    line: int
    event_id: NotRequired[str]
    ids: NotRequired[dict[str, str]]
    request_key: NotRequired[str]
    position: NotRequired[str]
    error: NotRequired[Refusal]


class Batch(TypedDict):
    """What became of each line; the status is 422 if none was accepted."""

    accepted: int
    refused: int
    results: list[Line]
    position: NotRequired[str]


# ---- configs and recipients
class Report(TypedDict):
    """What the alert program told the author of a config."""

    kind: str
    text: str
    at: str


@with_config(ConfigDict(extra="allow"))
class StoredConfig(TypedDict):
    """A config as it stands; members that mean nothing here are kept."""

    id: str
    name: str
    channel: dict[str, list[str]]
    enabled: bool
    metric: NotRequired[Any]
    forward: NotRequired[Forward | None]
    version: int
    etag: str
    reports: NotRequired[list[Report]]


@with_config(ConfigDict(extra="allow"))
class OneConfig(StoredConfig):
    """And the position at which it was read."""

    position: str


class ConfigPage(TypedDict):
    """Configs in the order of their ids."""

    items: list[StoredConfig]
    next: str | None
    position: str


@with_config(ConfigDict(extra="allow"))
class StoredRecipient(TypedDict):
    """A recipient as it stands."""

    id: str
    name: NotRequired[str]
    addresses: NotRequired[dict[str, str]]
    locale: NotRequired[str | None]
    time_zone: NotRequired[str | None]
    preferences: NotRequired[dict[str, Any] | None]
    version: int
    etag: str


@with_config(ConfigDict(extra="allow"))
class OneRecipient(StoredRecipient):
    """And the position at which it was read."""

    position: str


class RecipientPage(TypedDict):
    """Recipients in the order of their ids."""

    items: list[StoredRecipient]
    next: str | None
    position: str


class Decided(TypedDict):
    """A change that was decided on the log; `version` and `etag` are missing where the answer (202) came before."""

    id: str
    position: str
    version: NotRequired[int]
    etag: NotRequired[str]


# ---- notices
class NoticeState(TypedDict):
    """What its user has done with a notice."""

    seen_at: str | None
    read_at: str | None
    archived_at: str | None
    snoozed_until: str | None


class ForwardState(TypedDict):
    """What became of one forward."""

    what: Literal["forward", "repeat", "resolved"]
    channel: str
    due_at: str | None
    outcome: str
    reason: str | None


class Notice(TypedDict):
    """A notice as its user gets it. A pushed `updated` says nothing of `forwards`."""

    id: str
    title: str | None
    text: str | None
    severity: Severity
    alert: str | None
    config: str | None
    key: str | None
    entity: EntityRef | None
    metric: Any
    data: Any
    link: str | None
    raised_at: str
    ended_at: str | None
    state: NoticeState
    forwards: NotRequired[list[ForwardState]]


class OneNotice(Notice):
    """And the position at which it was read."""

    position: str


class Counts(TypedDict):
    """How many stand unread and unseen."""

    unread: int
    unseen: int


class CountsAt(Counts):
    """And the position at which they were read."""

    position: str


class NoticePage(TypedDict):
    """Notices, newest first."""

    items: list[Notice]
    next: str | None
    counts: Counts
    position: str


class Sent(TypedDict):
    """User → id of the notice; `request_key` repeats the request harmlessly."""

    ids: dict[str, str]
    request_key: str
    position: str


class Marked(TypedDict):
    """`done`: the command had been taken before."""

    cmd: str
    position: str
    done: NotRequired[Literal[True]]


@with_config(ConfigDict(extra="allow"))
class PreferencesAt(TypedDict):
    """What the user says about forwards; members that mean nothing here are kept."""

    alerts: NotRequired[dict[str, dict[str, bool | ChannelPreference]]]
    channels: NotRequired[dict[str, bool | ChannelPreference]]
    quiet: NotRequired[list[Quiet]]
    time_zone: NotRequired[str | None]
    position: str


# ---- silences
class Silence(TypedDict):
    """Forwards about what matches are muted until a time."""

    id: str
    alert: str | None
    entity: EntityRef | None
    user: str | None
    everyone: bool
    until: str
    comment: str
    by: str
    set_at: str


class OneSilence(Silence):
    """And the position at which it was read or written."""

    position: str


class SilencePage(TypedDict):
    """Silences; without the scope `configs` only the caller's own."""

    items: list[Silence]
    next: str | None
    position: str


class SilenceIsOver(TypedDict):
    """It is over."""

    id: str
    position: str


# ---- tokens
class Revoked(TypedDict):
    """It is on the log there."""

    position: str


# ---- history
class Moment(TypedDict):
    """Something that happened, and where it stands on the log."""

    at: str
    topic: str
    partition: int
    offset: int
    event: str
    event_id: str
    told: str
    details: dict[str, Any]


class Story(TypedDict):
    """The whole story of one notice."""

    id: str
    user: str
    title: str
    kind: str
    severity: str
    alert: str | None
    config: str | None
    key: str | None
    entity: EntityRef | None
    state: dict[str, str | None]
    outcomes: dict[str, str]
    waits: list[dict[str, Any]]
    moments: list[Moment]


class LogRecord(TypedDict):
    """One record of the log: an event, a dead letter, or bytes that are neither."""

    topic: str
    partition: int
    offset: int
    at: str
    key: str | None
    event: str | None
    value: NotRequired[dict[str, Any] | None]
    dead_letter: NotRequired[dict[str, Any]]
    broken: NotRequired[str]
    hex: NotRequired[str]


class HistoryPage(TypedDict):
    """Records in the order of the log's time."""

    items: list[LogRecord]
    next: str | None


class PastInbox(TypedDict):
    """An inbox as it was."""

    user: str
    as_of: str
    counts: Counts
    items: list[Notice]
    next: str | None


# ---- the demo of `tidings up`
class Demo(TypedDict):
    """What `tidings up` adds to its page."""

    mail: bool
    stress: bool
