"""AlertWatcher: the thread that reads what the program prints, cuts it into lines, and hands them to the session until
stdout ends.
"""

from __future__ import annotations

import logging
import os
import threading

from wrapper.child import Child
from wrapper.protocol import LineSplitter
from wrapper.session import Session
from wrapper.world import WorldError

READ_BYTES = 256 * 1024

log = logging.getLogger(__name__)


class AlertWatcher(threading.Thread):
    """Of one child; it never writes to the program, so that full pipes can't lock the two together."""

    def __init__(self, alert: str, child: Child, session: Session) -> None:
        super().__init__(name=f"alert.{alert}", daemon=True)
        self._alert, self._child, self._session = alert, child, session

    def run(self) -> None:
        """Until the end of stdout."""
        splitter = LineSplitter()
        try:
            while data := os.read(self._child.stdout, READ_BYTES):
                self._session.heard(splitter.feed(data))
            if splitter.rest:
                log.warning(
                    "stdout ended within a line, which does not count alert=%s bytes=%d",
                    self._alert,
                    len(splitter.rest),
                )
        except WorldError as error:
            self._session.world_failed = error
        except Exception:
            log.exception("a bug in the wrapper; the program is started again alert=%s", self._alert)
        finally:
            self._child.close_stdout()
            self._session.ended.set()
