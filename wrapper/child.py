"""A program as a child process: its own session, a short list of environment names, and never older than this process.

Started from the main thread only: PR_SET_PDEATHSIG fires when the thread that started the child ends. Lines for stdin
are queued, and a thread of their own writes them, so that nobody else ever blocks on a program that does not read;
stderr is always drained.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pwd
import queue
import resource
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wrapper.alert_file import Alert, Limits
from wrapper.protocol import LineSplitter, TooLong

ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TZ")
STDERR_LINE = 8 * 1024
STDERR_LINES_PER_S = 100
LAST_LINES = 50
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_libc = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

log = logging.getLogger(__name__)


class CannotStart(RuntimeError):
    """The program can't be started; the message says why and what to do."""


def check(alert: Alert) -> None:
    """CannotStart, if that can be told without starting it."""
    if not alert.cwd.is_dir():
        raise CannotStart(f"cwd {alert.cwd} is not a directory")
    program = alert.run[0]
    path = (
        str(alert.cwd / program) if "/" in program else shutil.which(program, path=os.environ.get("PATH", os.defpath))
    )
    if path is None or not os.path.exists(path):  # noqa: PTH110 - pathlib would follow the same call
        raise CannotStart(f"program {program!r} does not exist" + ("" if "/" in program else " on PATH"))
    if alert.user is not None:
        _group_of(alert.user)
    if not os.access(path, os.X_OK) or os.path.isdir(path):  # noqa: PTH112
        raise CannotStart(f"program {path} is not executable: chmod +x it, or name its interpreter in `run`")


class Child:
    """One process and its pipes. Make it in the main thread. CannotStart."""

    def __init__(self, alert: Alert) -> None:
        check(alert)
        names = (*ENVIRONMENT, *alert.env)
        as_user: dict[str, Any] = {}
        if alert.user is not None:
            as_user = {"user": alert.user, "group": _group_of(alert.user), "extra_groups": []}
        env = {n: os.environ[n] for n in names if n in os.environ} | {"PYTHONUNBUFFERED": "1"}
        try:
            self.process = subprocess.Popen(
                alert.run,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=alert.cwd,
                env=env,
                bufsize=0,
                start_new_session=True,
                preexec_fn=_bounded(os.getpid(), alert.limits),  # noqa: PLW1509 - a few calls, looked up before the fork
                **as_user,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotStart(f"program {alert.run[0]!r}: {getattr(error, 'strerror', error)}") from error
        assert self.process.stdin and self.process.stdout and self.process.stderr  # noqa: S101, PT018 - pipes were asked for
        self.stdout = self.process.stdout.fileno()
        self.last_words: deque[str] = deque(maxlen=LAST_LINES)
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._log = logging.getLogger(f"alert.{alert.name}")
        self._threads = [
            threading.Thread(target=self._write, name=f"stdin.{alert.name}", daemon=True),
            threading.Thread(target=self._drain, name=f"stderr.{alert.name}", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def resident(self) -> int:
        """Bytes that it and all that it started hold; what has ended meanwhile holds nothing."""
        total, pids = 0, [self.process.pid]
        while pids:
            own = Path(f"/proc/{pids.pop()}")
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += int((own / "statm").read_text().split()[1]) * PAGE_BYTES
                for thread in (own / "task").iterdir():
                    pids += [int(pid) for pid in (thread / "children").read_text().split()]
        return total

    def close_stdout(self) -> None:
        """By the thread that reads it."""
        assert self.process.stdout  # noqa: S101
        self.process.stdout.close()

    def write(self, lines: list[bytes]) -> None:
        """Queue lines for stdin; never blocks."""
        if lines:
            self._lines.put(b"".join(lines))

    def close_stdin(self) -> None:
        """End of input, after what is queued."""
        self._lines.put(None)

    def terminate(self, signal_number: int = signal.SIGTERM) -> None:
        """To the whole group."""
        try:
            os.killpg(self.process.pid, signal_number)
        except ProcessLookupError:
            log.debug("a group was gone already pid=%d", self.process.pid)

    def exit_code(self, seconds: float) -> int | None:
        """Wait for it to end by itself; null if it does not."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> int:
        """Kill what is left of the group and wait; the exit code."""
        self.terminate(signal.SIGKILL)
        code = self.process.wait()
        self.close_stdin()
        for thread in self._threads:
            thread.join(timeout=5)
        return code

    def _write(self) -> None:
        pipe = self.process.stdin
        assert pipe  # noqa: S101
        try:
            while (data := self._lines.get()) is not None:
                view = memoryview(data)
                while view:
                    view = view[pipe.write(view) :]
        except BrokenPipeError:
            log.debug("the program reads no more pid=%d", self.process.pid)
        finally:
            try:
                pipe.close()
            except BrokenPipeError:
                log.debug("nothing was left to close pid=%d", self.process.pid)

    def _drain(self) -> None:
        """Stderr to the log, at most so many lines a second; the last ones are kept for the report of a crash."""
        pipe = self.process.stderr
        assert pipe  # noqa: S101
        splitter = LineSplitter(STDERR_LINE)
        second, count = 0.0, 0
        with pipe:
            while data := pipe.read(64 * 1024):
                for line in splitter.feed(data):
                    if time.monotonic() - second > 1:
                        if count > STDERR_LINES_PER_S:
                            self._log.warning("left out %d lines", count - STDERR_LINES_PER_S)
                        second, count = time.monotonic(), 0
                    count += 1
                    text = (line.head if isinstance(line, TooLong) else line).decode("utf-8", "replace").rstrip()
                    self.last_words.append(text)
                    if count <= STDERR_LINES_PER_S:
                        self._say(text)
        if splitter.rest:  # the last words of many have no line end
            self.last_words.append(splitter.rest.decode("utf-8", "replace"))
            self._say(self.last_words[-1])

    def _say(self, text: str) -> None:
        """Telegraf's prefixes say how loud."""
        levels = {"E! ": logging.ERROR, "W! ": logging.WARNING, "I! ": logging.INFO, "D! ": logging.DEBUG}
        level = levels.get(text[:3])
        self._log.log(logging.INFO if level is None else level, "%s", text if level is None else text[3:])


def ending(code: int | None) -> tuple[str, str]:
    """How a program ended before its input did, by its exit code (null: it still runs): in a word, and for people."""
    if code is None:
        return "closed stdout", "it closed its stdout"
    if code < 0:
        return f"signal {-code}", f"killed by signal {-code}"
    return f"exit {code}", f"exit code {code} before the end of its input"


def _group_of(user: str) -> int:
    """The main group of a user. CannotStart if there is none of that name, or only root may be somebody else."""
    if os.geteuid() != 0:
        raise CannotStart(f"user {user!r}: only root may start programs as somebody else")
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError as error:
        raise CannotStart(f"user {user!r} does not exist") from error


def _bounded(parent: int, limits: Limits) -> Callable[[], None]:
    """It ends with its parent, and keeps to its limits."""
    most = [(resource.RLIMIT_NOFILE, (limits.files, limits.files))]
    if limits.cpu_seconds:
        most.append((resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds)))

    def before_exec() -> None:
        for what, both in most:
            resource.setrlimit(what, both)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended in between
            os._exit(1)

    return before_exec
