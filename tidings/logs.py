"""Logging of a role: one line an event on stderr, `key=value` for what it is about.

Client libraries that repeat themselves while a broker is away (about 1,300 lines in one outage) are held to one
line a text in ten seconds, with the number of those left out.
"""

from __future__ import annotations

import logging
import sys
import time

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


def configure(role: str, level: str = "INFO") -> None:
    """Everything from `level` on to stderr; the client libraries only from WARNING on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Seldom())
    form = logging.Formatter(f"%(asctime)s.%(msecs)03dZ %(levelname)s {role} %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    form.converter = time.gmtime
    handler.setFormatter(form)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for name in TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
