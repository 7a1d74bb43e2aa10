"""Logging of a role: one line an event on stderr, `key=value` for what it is about; `request` names the HTTP request or
the live connection that a line of the gateway is about.

Client libraries that repeat themselves while a broker is away (about 1,300 lines in one outage) are held to one
line a text in ten seconds, with the number of those left out.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TextIO

from api.http.request_ids import current

EVERY_S = 10.0
TALKATIVE = ("aiokafka", "kafka", "faust", "mode")


class Seldom(logging.Filter):
    """Lets a text of a logger pass once in ten seconds."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[tuple[str, str], float] = {}
        self._left_out: dict[tuple[str, str], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the line is written; its text then says how many like it were not."""
        if record.name.partition(".")[0] not in TALKATIVE:
            return True
        line, now = (record.name, str(record.msg)[:80]), time.monotonic()
        if now - self._last.get(line, -EVERY_S) < EVERY_S:
            self._left_out[line] = self._left_out.get(line, 0) + 1
            return False
        self._last[line] = now
        if left_out := self._left_out.pop(line, 0):
            record.msg, record.args = f"{record.getMessage()} left_out={left_out}", ()
        return True


def named(record: logging.LogRecord) -> bool:
    """A filter that adds the request to the text of what is said while it is answered, or with it as `extra`."""
    if request := getattr(record, "request", None) or current.get():
        record.msg, record.args = f"{record.getMessage()} request={request}", ()
    return True


def lines(stream: TextIO, role: str) -> logging.Handler:
    """Writes a line for each record."""
    handler = logging.StreamHandler(stream)
    handler.addFilter(Seldom())
    handler.addFilter(named)
    form = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {role} %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    return handler


def configure(role: str, level: str = "INFO") -> None:
    """Everything from `level` on to stderr; the client libraries only from WARNING on."""
    logging.basicConfig(level=level, handlers=[lines(sys.stderr, role)], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
