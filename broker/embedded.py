"""An Apache Kafka of one node, for development and tests: started, awaited, stopped and recovered like a library.

It keeps its promises through kill -9 of itself or of its parent: the data stays, nothing is left running, and the
next start on the same directory just works. Whatever is wrong is told in one line, as a BrokerError.
"""

import os
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from broker import directory as data
from broker.errors import BrokerError, disk_full, unusable
from broker.jvm import LIBS, NO_JAVA, Jvm, command
from broker.readiness import ask, is_free

# Below this Kafka could not even roll a segment's indexes; better said before the start than by a dead broker.
LEAST_FREE = 32 * 1024**2
# Ports are chosen below the range that the kernel gives to outgoing connections, so that the port is free next time.
PORTS = range(20_000, 32_000)

__all__ = ["BrokerError", "EmbeddedBroker"]


class EmbeddedBroker:
    """One broker on one data directory, which must be empty, new, or one of ours.

    All methods block and may be called from any thread, one at a time. `port` 0 means the port that the directory
    remembers, or a free one; a port that is given must be free. A broker that died can be started again.
    """

    def __init__(self, data_dir: Path, port: int = 0, *, libs: Path = LIBS, jvm_options: Sequence[str] = ()) -> None:
        self.data_dir = data_dir.absolute()
        self._port = port
        self._libs = libs
        self._jvm_options = jvm_options
        self._cluster_id = ""
        self._lock: int | None = None
        self._jvm: Jvm | None = None

    @property
    def bootstrap(self) -> str:
        """The address for clients, `127.0.0.1:port`; known from the first start on, and the same ever after."""
        if not self._port:
            raise BrokerError("the embedded broker has no address before its first start")
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The process id of the JVM."""
        if self._jvm is None:
            raise BrokerError("the embedded broker is not running")
        return self._jvm.pid

    def alive(self) -> bool:
        """Whether the JVM runs. If it does not although nobody stopped it, `failure()` says why."""
        return self._jvm is not None and self._jvm.alive()

    def start(self, timeout: float = 30.0) -> None:
        """Starts the broker and returns when a topic can be made; `timeout` in seconds. Does nothing if it runs.

        Raises BrokerError for a taken port, a missing Java, missing jars, a foreign directory, a second broker on the
        directory, a full disk, or whatever else Kafka died of. Nothing is left running then.
        """
        self.launch()
        self.wait_ready(timeout)

    def launch(self) -> None:
        """The first half of `start`: from here on `bootstrap` is known, and `wait_ready` is what is left to do.

        Raises as `start` does.
        """
        if self.alive():
            return
        with self._or_nothing():
            self._launch()

    def _launch(self) -> None:
        # Asked first: that a program is missing should be known before anything is written.
        server = command("kafka.Kafka", data.PROPERTIES, libs=self._libs, options=self._jvm_options)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if self._free() < LEAST_FREE:
            raise disk_full(self.data_dir, self._free())
        if self._lock is None:
            self._lock = data.lock(self.data_dir)
        identity = data.identify(self.data_dir)
        self._cluster_id = identity.cluster_id
        self._port = self._choose_port(identity.port)
        data.remember(self.data_dir, replace(identity, port=self._port))
        data.write_properties(self.data_dir, port=self._port, controller_port=_free_port(besides=self._port))
        if data.formatted_as(self.data_dir) is None:
            self._format(self._lock)
        self._jvm = Jvm(server, cwd=self.data_dir, lock=self._lock)

    def _choose_port(self, remembered: int) -> int:
        if self._port:
            if not is_free(self._port):
                raise BrokerError(
                    f"port {self._port} is taken by another program: stop that one or choose another port"
                )
            return self._port
        return remembered if remembered and is_free(remembered) else _free_port()

    def _format(self, lock: int) -> None:
        # A kill in the middle leaves a log directory without its last file: formatting again is harmless.
        arguments = ("format", "--cluster-id", self._cluster_id, "--ignore-formatted", "--config", data.PROPERTIES)
        self._jvm = Jvm(command("kafka.tools.StorageTool", *arguments, libs=self._libs), cwd=self.data_dir, lock=lock)
        if not self._jvm.wait(60) or data.formatted_as(self.data_dir) is None:
            raise BrokerError(self.failure())

    def wait_ready(self, timeout: float) -> None:
        """Waits until *this* broker answers and a topic can be made, `timeout` seconds at most; else BrokerError."""
        with self._or_nothing():
            self._await(time.monotonic() + timeout, timeout)

    def _await(self, deadline: float, timeout: float) -> None:
        while time.monotonic() < deadline:
            if not self.alive():
                raise BrokerError(self.failure())
            found = ask(self._port, timeout=2.0)
            if found is not None and found.cluster_id != self._cluster_id:
                raise BrokerError(f"another Kafka answers on port {self._port}: stop that one or choose another port")
            if found is not None and self._port in found.ports:
                return
            time.sleep(0.02)
        raise BrokerError(f"the embedded broker was not ready within {timeout:g} s: see {self.data_dir / 'kafka.log'}")

    @contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """A start that fails leaves nothing running."""
        try:
            yield
        except OSError as error:
            self.stop()
            raise unusable(self.data_dir, error, self._free()) from error
        except BaseException:
            self.stop()
            raise

    def failure(self) -> str:
        """Why the broker is not running, in one line: from its last words, for on a full disk there is no log."""
        if self._jvm is None:
            return "the embedded broker has not been started"
        words = list(self._jvm.words)
        text = "\n".join(words)
        if "No space left on device" in text or "Disk quota exceeded" in text or self._free() < LEAST_FREE:
            return str(disk_full(self.data_dir, self._free()))
        if "Address already in use" in text:
            return f"port {self._port} was taken by another program: stop that one or choose another port"
        if "UnsupportedClassVersionError" in text:
            return NO_JAVA
        last = "it was killed"  # whatever a busy one complained of before
        if not self._jvm.killed():
            last = next((line for line in words if line.startswith(("ERROR", "Error", "Exception"))), last)
        return f"the embedded broker has ended ({last}): see {self.data_dir / 'kafka.log'}"

    def _free(self) -> int:
        """Bytes free on the disk of the data directory, or of the nearest parent that exists."""
        path = next(path for path in (self.data_dir, *self.data_dir.parents) if path.exists())
        return shutil.disk_usage(path).free

    def kill(self) -> None:
        """Ends it by kill -9, for tests; `start` brings it back on the same port."""
        if self._jvm is not None:
            self._jvm.kill()

    def stop(self, timeout: float = 10.0) -> None:
        """Stops the broker in order, with SIGKILL after `timeout` seconds, and gives the directory free."""
        if self._jvm is not None and self._jvm.alive():
            self._jvm.end(timeout)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _free_port(besides: int = 0) -> int:
    while True:
        port = secrets.choice(PORTS)
        if port != besides and is_free(port):
            return port
