"""Topics of one test on the real broker, and what the wrapper's tests do on them: change, watch the chain, run
wrappers.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import Popen
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from topics import provision
from topics.catalogue import ALERT_CONFIGS, ALERT_REPORTS, NOTICE_REQUESTS, Catalogue
from topics.cluster import Cluster
from topics.codec import decode, encode
from topics.events import AlertConfigDeleted, AlertConfigured, AlertReported, Effect, EntityChanged, Event, Lane, Record
from topics.fetch import to_record
from topics.ids import new_id
from wrapper.chain import Chain, Verdict
from wrapper.main import run
from wrapper.setting import Numbers, Timing

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FAST = Timing(restart=0.05, restart_most=0.2, handshake=20)


class LogView:
    """Follows one topic from its beginning."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue, topic: str) -> None:
        self._catalogue = catalogue
        self._consumer = KafkaConsumer(**cluster.for_kafka_python(), enable_auto_commit=False)
        partitions = catalogue.topics()[topic].partitions
        spots = [TopicPartition(catalogue.physical(topic), p) for p in range(partitions)]
        self._consumer.assign(spots)
        self._consumer.seek_to_beginning(*spots)
        self.messages: list[Any] = []

    def until(self, done: Callable[[], bool], seconds: float = 30) -> None:
        """Read on until `done`, which is asked after each fetch."""
        limit = time.monotonic() + seconds
        while not done():
            assert time.monotonic() < limit, f"not within {seconds:g} s"
            for messages in self._consumer.poll(timeout_ms=100).values():
                for message in messages:
                    self.messages.append(message)
                    self.take(message)

    def take(self, message: Any) -> None:
        """What a kind of view makes of a message."""

    def close(self) -> None:
        self._consumer.close(autocommit=False)


class ChainView(LogView):
    """The accepted effects of one alert."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue, alert: str) -> None:
        super().__init__(cluster, catalogue, NOTICE_REQUESTS)
        self._alert, self.chain = alert, Chain(alert, 0)
        self._held: list[Effect] = []
        self.effects: list[Effect] = []
        self.starts = 0

    def take(self, message: Any) -> None:
        record = to_record(self._catalogue, message)
        if not isinstance(record, Record) or record.key != self._alert:
            return
        verdict = self.chain.apply(record)
        if verdict is Verdict.STARTED:
            self._held, self.starts = [], self.starts + 1
        elif verdict in (Verdict.HELD, Verdict.ACCEPTED):
            self._held += getattr(record.event, "effects", ())
        if verdict is Verdict.ACCEPTED:
            self.effects += self._held
            self._held = []

    def said(self) -> list[tuple[str, str]]:
        return [(e.op, e.key) for e in self.effects]


class ReportView(LogView):
    """What people are told of the alerts."""

    def __init__(self, cluster: Cluster, catalogue: Catalogue) -> None:
        super().__init__(cluster, catalogue, ALERT_REPORTS)
        self.reports: list[AlertReported] = []

    def take(self, message: Any) -> None:
        event = decode(message.value)
        if isinstance(event, AlertReported):
            self.reports.append(event)

    def of(self, alert: str, kind: str) -> list[dict[str, Any]]:
        return [json.loads(r.body) for r in self.reports if r.alert == alert and r.kind == kind]


class World:
    """Provisioned topics, a producer, and the wrappers that a test started."""

    def __init__(self, kafka: str, namespace: str) -> None:
        self.cluster, self.catalogue = Cluster(kafka), Catalogue(("host",), prefix=namespace)
        provision.apply(self.cluster, self.catalogue)
        self._producer = KafkaProducer(**self.cluster.for_kafka_python(), acks="all", retries=20)
        self._closing: list[Callable[[], object]] = []

    def close(self) -> None:
        for close in reversed(self._closing):
            close()
        self._producer.close(timeout=10)

    # ---------------------------------------------------------- what others write
    def put(self, topic: str, key: str, value: bytes) -> Any:
        return self._producer.send(self.catalogue.physical(topic), key=key.encode(), value=value)

    def event(self, topic: str, key: str, event: Event) -> None:
        self.put(topic, key, encode(event)).get(timeout=10)

    def config(self, id: str, name: str, metric: str, *, enabled: bool = True) -> None:
        body = f'{{"id": "{id}", "name": "{name}", "metric": {metric}, "channel": {{"email": ["u1", "u2"]}}}}'
        lanes = tuple(Lane("email", "email", "recipient", user, 30_000) for user in ("u1", "u2"))
        event = AlertConfigured(
            event_id=new_id(),
            producer="test",
            occurred_at=0,
            config_id=id,
            version=1,
            name=name,
            enabled=enabled,
            lanes=lanes,
            forward='{"digest":"10m"}',
            body=body.encode(),
        )
        self.event(ALERT_CONFIGS, id, event)

    def delete_config(self, id: str, name: str) -> None:
        gone = AlertConfigDeleted(event_id=new_id(), producer="test", occurred_at=0, config_id=id, version=2, name=name)
        self.event(ALERT_CONFIGS, id, gone)

    def host(self, id: str, body: dict[str, Any] | None) -> Any:
        event = EntityChanged(
            event_id=new_id(),
            producer="test",
            occurred_at=0,
            entity_type="host",
            entity_id=id,
            op="deleted" if body is None else "updated",
            body=None if body is None else json.dumps(body).encode(),
        )
        return self.put("entities.host", id, encode(event))

    def flush(self) -> None:
        self._producer.flush(timeout=30)

    # ---------------------------------------------------------- what the wrapper writes
    def chain(self, alert: str) -> ChainView:
        view = ChainView(self.cluster, self.catalogue, alert)
        self._closing.append(view.close)
        return view

    def reports(self) -> ReportView:
        view = ReportView(self.cluster, self.catalogue)
        self._closing.append(view.close)
        return view

    def view(self, topic: str) -> LogView:
        view = LogView(self.cluster, self.catalogue, topic)
        self._closing.append(view.close)
        return view

    # ---------------------------------------------------------- wrappers
    def wrapper(self, file: Path, timing: Timing = FAST, operators: tuple[str, ...] = ()) -> RunningWrapper:
        wrapper = RunningWrapper(self, file, timing, operators)
        self._closing.append(wrapper.stop)
        return wrapper

    def wrapper_process(self, file: Path) -> Popen[bytes]:
        """A process of its own, to be killed."""
        root = Path(__file__).resolve().parents[2]
        code = (
            "import sys, threading, pathlib; from wrapper.main import run; from wrapper.setting import Timing;"
            "from topics.cluster import Cluster; from topics.catalogue import Catalogue;"
            "sys.exit(run(Cluster(sys.argv[1]), Catalogue(('host',), prefix=sys.argv[2]), [pathlib.Path(sys.argv[3])],"
            "stop=threading.Event(), timing=Timing(restart=0.05, restart_most=0.2)))"
        )
        arguments = [self.cluster.bootstrap, self.catalogue.prefix, str(file)]
        process = Popen([sys.executable, "-c", code, *arguments], cwd=root)

        def end() -> None:
            process.kill()
            process.wait()

        self._closing.append(end)
        return process


class RunningWrapper:
    """`wrapper.main.run` in a thread."""

    def __init__(self, world: World, file: Path, timing: Timing, operators: tuple[str, ...]) -> None:
        self._stop, self.ready = threading.Event(), threading.Event()
        self.numbers: dict[str, Numbers] = {}
        self.code: int | None = None
        self._arguments = world.cluster, world.catalogue, [file], timing, operators
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        cluster, catalogue, files, timing, operators = self._arguments
        self.code = run(
            cluster,
            catalogue,
            files,
            stop=self._stop,
            ready=self.ready.set,
            numbers=self.numbers,
            timing=timing,
            operators=operators,
        )

    def stop(self) -> int | None:
        self._stop.set()
        self._thread.join(timeout=30)
        assert not self._thread.is_alive(), "the wrapper does not stop"
        return self.code


def alert_file(directory: Path, *entries: tuple[str, str, str]) -> Path:
    """An alert's file with (name, program's file name, its text); a shell or Python script by its first line."""
    text = ""
    for name, program, source in entries:
        path = directory / program
        if source:
            path.write_text(source)
            path.chmod(0o755)
        text += f'[[alert]]\nname = "{name}"\nrun = ["./{program}"]\nentities = ["host"]\n\n'
    file = directory / "alerts.toml"
    file.write_text(text)
    return file


def alive(pid: int) -> bool:
    """Whether a process with this id exists (and is no zombie)."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
