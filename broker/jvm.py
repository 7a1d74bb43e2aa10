"""Runs one Java program for the broker: with few resources, in a session of its own, and never longer than we live.

The kernel kills the child when the *thread* that started it ends. So that thread is one of our own: it starts the
child, keeps the child's last words, and ends after it.
"""

import os
import shutil
import signal
import subprocess
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from threading import Thread

from broker.errors import BrokerError

ROOM = Path(__file__).parent
LIBS = ROOM / "libs"
ARCHIVE = "kafka.jsa"
# With much room for what dies young a collection, which stops everything for some milliseconds, comes a third as often.
HEAP = ("-Xms128m", "-Xmn64m", "-Xmx256m", "-XX:+UseSerialGC", "-XX:MaxDirectMemorySize=64m")
OPTIONS = (*HEAP, "-XX:TieredStopAtLevel=1")
NO_JAVA = "Java 17 or newer is needed for the embedded broker: apt-get install openjdk-17-jre-headless"


def java() -> str:
    """The Java program: JAVA_HOME's, or the one on PATH. Raises BrokerError where there is none."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home, "bin", "java")) if home else "java")
    if found is None:
        raise BrokerError(NO_JAVA)
    return found


def command(main: str, *arguments: str, libs: Path, options: Sequence[str] = ()) -> list[str]:
    """The command line for a main class among Kafka's jars."""
    jars = sorted(libs.glob("*.jar"))  # sorted: the class archive holds for one order only
    if not jars:
        raise BrokerError(f"Kafka's jars are missing in {libs}: run `make setup`")
    archive = libs / ARCHIVE
    return [
        java(),
        *OPTIONS,
        *([f"-XX:SharedArchiveFile={archive}"] if archive.exists() else []),
        f"-Dlog4j2.configurationFile={(ROOM / 'log4j2.properties').as_uri()}",
        *options,
        "-cp",
        ":".join(map(str, jars)),
        main,
        *arguments,
    ]


class Jvm:
    """One running Java program. `words` holds the last lines it printed: on a full disk they are all that is told."""

    def __init__(self, arguments: Sequence[str], *, cwd: Path, lock: int) -> None:
        """Starts the program in `cwd`; it inherits the file descriptor `lock`, and with it the directory's lock."""
        self.words: deque[str] = deque(maxlen=200)
        # Linux only; elsewhere a killed parent leaves the broker running, and the lock tells the next start so.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        started: Future[subprocess.Popen[str]] = Future()
        self._keeper = Thread(target=self._keep, args=([*guard, *arguments], cwd, lock, started), daemon=True)
        self._keeper.start()
        self._process = started.result()

    def _keep(self, arguments: list[str], cwd: Path, lock: int, started: "Future[subprocess.Popen[str]]") -> None:
        try:
            process = subprocess.Popen(
                arguments,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for us: we stop the broker last, in order
            )
        except BaseException as error:  # noqa: BLE001 - handed to the starter, who raises it
            started.set_exception(error)
            return
        started.set_result(process)
        with process:
            for line in process.stdout or ():
                self.words.append(line.rstrip())

    @property
    def pid(self) -> int:
        """The process id of the JVM itself: setpriv replaces itself by it."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether the program still runs."""
        return self._process.poll() is None

    def killed(self) -> bool:
        """Whether it ended by SIGKILL."""
        return self._process.poll() == -signal.SIGKILL

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for the end, `timeout` seconds at most; True if it has ended. Its last words are complete then."""
        self._keeper.join(timeout)
        return not self._keeper.is_alive()

    def end(self, timeout: float) -> None:
        """SIGTERM; after `timeout` seconds SIGKILL. Returns when it has ended."""
        self._process.send_signal(signal.SIGTERM)
        if not self.wait(timeout):
            self.kill()

    def kill(self) -> None:
        """SIGKILL, and waits for the end."""
        self._process.kill()
        self.wait()
