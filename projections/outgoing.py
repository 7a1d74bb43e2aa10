"""What a fold or a decision asks to be said: an event with its topic and key, before it stands in the outbox."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeVar, overload

from topics.events import Event, Record

T_co = TypeVar("T_co", covariant=True)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """`event.event_id` is derived from the question that the event answers, so saying it twice changes nothing.

    `said` is the event, or what makes it. Such a one has a `mark`: the (user, notice id) of a NoticeRaised, the
    (delivery id,) of a DeliveryRequested. It tells a fold that has read them back that nothing has to be made.
    """

    topic: str
    key: str
    said: Event | Callable[[], Event]
    mark: tuple[str, ...] = ()

    @property
    def event(self) -> Event:
        """Made anew each time it is asked for, where it is made."""
        return self.said if isinstance(self.said, Event) else self.said()


class Refused(ValueError):
    """`apply` can't take this record: it becomes a dead letter with this text as the reason.

    Raised before anything was changed.
    """


def out_of_place(record: Record) -> Refused:
    """What refuses an event that its topic is not for."""
    return Refused(f"{type(record.event).__name__} has no place on {record.topic}")


def source_of(record: Record) -> dict[str, Any]:
    """Derived events say who spoke first and what they come from, so that every rebuild would write the same bytes."""
    event = record.event
    if event is None:
        raise TypeError("a tombstone is the source of nothing")
    return {"producer": event.producer, "occurred_at": event.occurred_at, "caused_by": (record.cause,)}


class Later(Sequence[T_co]):
    """What many are told, each made when it is asked for: a request to a hundred thousand is never there at once.

    `parts`: how many, and what makes the one with a number below that.
    """

    def __init__(self, parts: Sequence[tuple[int, Callable[[int], T_co]]]) -> None:
        self._parts = [p for p in parts if p[0]]
        self._ends = list(accumulate(n for n, _ in self._parts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, at: int) -> T_co: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[T_co]: ...
    def __getitem__(self, at: int | slice) -> T_co | Sequence[T_co]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        if not 0 <= at < len(self):
            raise IndexError(at)
        part = bisect_right(self._ends, at)
        size, make = self._parts[part]
        return make(at - self._ends[part] + size)
