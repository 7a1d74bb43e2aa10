"""The world as an alert program is told of it: the configs of its name, the entities it watches, the recipients.

It stands in an SQLite file with the positions that it stands for, so that it takes no memory however large it is, and a
start reads on from there instead of the whole log. What changed lately is in memory, and goes to the file in one
transaction once the log has accepted a commit of these positions: who starts again never finds a file ahead of its
commits. (Kept back too long, it goes there before; such a file is not believed, and the log is read.)
"""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from topics.catalogue import ALERT_CONFIGS, RECIPIENTS, entity_topic
from topics.events import Cause, Lane
from topics.fetch import Spot
from topics.json_text import dumps, members
from wrapper.change import Change, Config, Entity, Kind, Recipient

STAMP = 1  # raise it when rows, or what records mean, change: older files are not believed
CHANGED_BYTES = 4 * 1024 * 1024  # about; more of it takes fewer writes
ROWS_AT_ONCE = 128  # a millisecond or two, for which others wait
Key = tuple[Kind, str, str]  # kind, entity type, id
WorldError = sqlite3.Error

SCHEMA = """
CREATE TABLE IF NOT EXISTS things (
    kind TEXT, type TEXT, id TEXT, text TEXT, at INTEGER, event_id TEXT, part INTEGER, place INTEGER, more TEXT,
    sum INTEGER, PRIMARY KEY (kind, type, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reached (topic TEXT, part INTEGER, next INTEGER, place INTEGER, event_id TEXT);
CREATE TABLE IF NOT EXISTS meant (text TEXT);
"""

log = logging.getLogger(__name__)


class Reached(NamedTuple):
    """How far a partition was read: the `next` offset, and the last record that has an id. As long as that stands on
    the log, it is the same log.
    """

    next: int
    place: int = -1
    event_id: str = ""


class World:
    """`file` null: one that goes with this object, as where another process has it. For one thread at a time.
    WorldError when it can't be read or written.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._db = _opened(file)
        self.meant = ""
        self.reached: dict[Spot, Reached] = {}
        self._changed: dict[Key, Change] = {}
        self._leaving: dict[Key, Change] = {}
        self._rows: Iterator[tuple[Key, Change]] = iter(())
        self._bytes = self._news = 0
        self.back()

    def close(self) -> None:
        """What was not saved is forgotten."""
        self._db.close()

    # -------------------------------------------------------------- what it is
    def config(self, id: str) -> Config | None:
        """An enabled config of the alert's name."""
        found = self._get(("config", "", id))
        return found.value if found and isinstance(found.value, Config) else None

    def entity(self, entity_type: str, id: str) -> Entity | None:
        """An entity that the alert watches."""
        found = self._get(("entity", entity_type, id))
        return found.value if found and isinstance(found.value, Entity) else None

    def things(self) -> Iterator[Change]:
        """All there is: configs, entities, recipients. It must not change meanwhile."""
        self.save()
        return map(_change, self._db.execute("SELECT * FROM things ORDER BY kind, type, id"))

    def put(self, change: Change) -> None:
        """Take one change in."""
        spot, event_id = change.spot, change.event_id
        self.reached[spot] = (
            Reached(change.offset + 1, change.offset, event_id)
            if event_id
            else self.reached.get(spot, Reached(0))._replace(next=change.offset + 1)
        )
        if change.kind != "nothing":
            self._changed[change.kind, change.entity_type, change.id] = change
            self._bytes += change.size
            self._news += 1

    # -------------------------------------------------------------- memory and file
    @property
    def full(self) -> bool:
        """Whether enough has changed to let it leave."""
        return self._bytes >= CHANGED_BYTES and not self._leaving

    def leave(self) -> None:
        """What has changed so far is to go to the file, bit by bit, by `store`."""
        self._leaving, self._changed, self._bytes = self._changed, {}, 0
        self._stands = dict(self.reached)
        self._rows = iter(sorted(self._leaving.items()))

    def store(self, accepted: dict[Spot, int]) -> None:
        """The next bit, which is more the more comes; the end once the log has accepted a commit of these positions."""
        count, self._news = ROWS_AT_ONCE + 2 * self._news, 0
        if not self._leaving or self._write(islice(self._rows, count)):
            return
        if self._bytes >= CHANGED_BYTES or all(accepted.get(s, 0) >= r.next for s, r in self._stands.items()):
            self._commit(self._stands)

    def save(self) -> None:
        """All of it to the file, now: it stands for positions that the log has accepted."""
        if self._leaving or self._changed or self._stands != self.reached:
            self._write(self._rows)
            self._write(sorted(self._changed.items()))
            self._changed, self._bytes = {}, 0
            self._commit(dict(self.reached))

    def back(self) -> None:
        """To what the file says, which is `meant` and has `reached`."""
        self._db.rollback()
        self._changed, self._leaving, self._rows, self._bytes = {}, {}, iter(()), 0
        found = self._db.execute("SELECT * FROM reached")
        self.reached = {Spot(topic, part): Reached(*rest) for topic, part, *rest in found}
        self._stands = dict(self.reached)
        (self.meant,) = self._db.execute("SELECT coalesce(max(text), '') FROM meant").fetchone()

    def clear(self, meant: str) -> None:
        """Begin anew, with a world that means this."""
        self._db.rollback()
        for table in ("things", "reached", "meant"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608 - our own names
        self._db.execute("INSERT INTO meant VALUES (?)", (meant,))
        self._db.commit()
        self.back()

    def _get(self, key: Key) -> Change | None:
        changed = self._changed.get(key) or self._leaving.get(key)
        if changed is not None:
            return changed
        row = self._db.execute("SELECT * FROM things WHERE kind = ? AND type = ? AND id = ?", key).fetchone()
        return _change(row) if row else None

    def _write(self, changed: Iterable[tuple[Key, Change]]) -> bool:
        """Whether there was any."""
        there: list[tuple[Any, ...]] = []
        gone: list[Key] = []
        for key, change in changed:
            if change.value is None:
                gone.append(key)
            else:
                there.append(_row(change, change.value))
        self._db.executemany("INSERT OR REPLACE INTO things VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", there)
        self._db.executemany("DELETE FROM things WHERE kind = ? AND type = ? AND id = ?", gone)
        return bool(there or gone)

    def _commit(self, reached: dict[Spot, Reached]) -> None:
        self._db.execute("DELETE FROM reached")
        self._db.executemany("INSERT INTO reached VALUES (?, ?, ?, ?, ?)", [(*s, *r) for s, r in reached.items()])
        self._db.commit()
        self._leaving, self._stands, self._rows = {}, reached, iter(())


def _opened(file: Path | None) -> sqlite3.Connection:
    """The file, if it is whole and nobody else has it; else one without a name, that goes with the connection."""
    if file is not None:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            return _checked(file)
        except (sqlite3.OperationalError, OSError) as error:  # locked, not to be opened or written
            log.warning("the world is folded anew at each start: its file can't be used file=%s reason=%s", file, error)
        except sqlite3.DatabaseError as error:
            log.warning("the world is folded anew: its file is damaged file=%s reason=%s", file, error)
            remove(file)
            return _opened(file)
    return _checked(None)


def _checked(file: Path | None) -> sqlite3.Connection:
    db = sqlite3.connect(file or "", timeout=0, check_same_thread=False)
    try:
        db.execute("PRAGMA cache_size = -2000")  # KiB
        if file is not None:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA wal_autocheckpoint = 4000")  # pages of 4 KiB
        db.executescript(SCHEMA)
        (word,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if word != "ok":
            raise sqlite3.DatabaseError(word)
    except BaseException:
        db.close()
        raise
    return db


def remove(file: Path) -> None:
    """With what SQLite keeps beside it."""
    for end in ("", "-wal", "-shm"):
        Path(f"{file}{end}").unlink(missing_ok=True)


def _row(change: Change, value: Config | Entity | Recipient) -> tuple[Any, ...]:
    at, more = value.at if isinstance(value, Entity) else 0, ""
    if isinstance(value, Config):
        lanes = [(lane.step, lane.channel, lane.kind, lane.value, lane.after_ms) for lane in value.lanes]
        more = dumps([value.forward, lanes])
    about = (change.kind, change.entity_type, change.id, value.text, at)
    row = (*about, change.event_id, change.spot.partition, change.offset, more)
    return *row, _sum(row)


def _change(row: tuple[Any, ...]) -> Change:
    kind, type_, id_, text, at, event_id, part, place, more, total = row
    if total != _sum(row[:-1]):  # SQLite sees a broken page, but no broken text
        raise sqlite3.DatabaseError("a row is not what was written")
    topic = ALERT_CONFIGS if kind == "config" else RECIPIENTS if kind == "recipient" else entity_topic(type_)
    cause = Cause(event_id, topic, part, place)
    value: Config | Entity | Recipient
    if kind == "entity":
        value = Entity(text, at, cause)
    elif kind == "config":
        forward, lanes = json.loads(more)
        value = Config(text, members(text).get("metric", "null"), tuple(Lane(*lane) for lane in lanes), forward, cause)
    else:
        value = Recipient(text)
    return Change(Spot(topic, part), place, 0, kind, id_, type_, value, "", event_id)


def _sum(row: tuple[Any, ...]) -> int:
    return zlib.crc32(repr(row).encode())
