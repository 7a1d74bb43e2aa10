"""One role as a child of `tidings up`: started, its output kept in a file, started again when it ends, stopped in
order.

It has a session of its own, so that Ctrl-C reaches only `up`, which stops all in order; and it dies with `up`
(`--parent`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tidings.restarts import Record

LOG_BYTES = 5 * 1024 * 1024
NOT_AGAIN = 2  # a setting or a file is wrong: the same start would end in the same way


class Hopeless(Exception):
    """A role can't be started at all; the text says why."""


class Child:
    """`keep` runs it until `stop`; `tell` gets a line for people, `changed` is called at every start."""

    def __init__(
        self,
        role: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        logs: Path,
        tell: Callable[[str], None],
        changed: Callable[[], None],
    ) -> None:
        self.role = role
        self.steady = False  # until then an end with a reason (exit 1) is final too
        self._command = [sys.executable, "-m", "tidings.cli.main", role, "--parent", str(os.getpid()), *arguments]
        self._environment = dict(environment)
        self._log = logs / f"{role}.log"
        self._tell, self._changed = tell, changed
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process, while one runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def keep(self) -> None:
        """Run it again and again, until `stop`. Hopeless."""
        record = Record()
        while not self._stopping:
            began = time.monotonic()
            code, how = await self._once()
            if self._stopping:
                return
            if code == NOT_AGAIN or (code == 1 and not self.steady):
                raise Hopeless(f"the {self.role} can't start: {self._last_words() or how}")
            record, pause = record.after(code, time.monotonic() - began)
            self._tell(
                f"the {self.role} {how}, starting it again{f' in {pause:g} s' if pause else ''}: see {self._log}"
            )
            await asyncio.sleep(pause)

    async def _once(self) -> tuple[int, str]:
        """One life: the exit code, and how it ended in words."""
        try:
            self._process = await self._start()
        except OSError as error:
            return 1, f"was not started ({error.strerror})"
        self._changed()
        code = await self._process.wait()
        return code, f"was ended by signal {-code}" if code < 0 else f"ended with {code}"

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and SIGKILL after `seconds`."""
        self._stopping = True
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), seconds)
        except TimeoutError:
            self._tell(f"the {self.role} did not stop within {seconds:g} s and is killed")
            self.kill()
            await process.wait()

    def kill(self) -> None:
        """SIGKILL, now."""
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _start(self) -> asyncio.subprocess.Process:
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES:
            self._log.replace(self._log.with_suffix(".log.1"))
        # PDEATHSIG follows the thread that starts the child: this is the main thread, which ends last.
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _last_words(self) -> str:
        try:
            with self._log.open("rb") as log:
                log.seek(max(0, self._log.stat().st_size - 4096))
                return (log.read().decode(errors="replace").strip().splitlines() or [""])[-1]
        except OSError:
            return ""
