"""What every test may ask for: one real Kafka and one real PostgreSQL for the whole run, and names of its own there.

With CI set a skipped test is a failed one: a test that can't run on a machine says why there, and nobody overlooks it.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
import sqlalchemy
from kafka.errors import KafkaError

from bench.postgres import server
from broker.embedded import EmbeddedBroker
from tidings.up_roles import free_ports as ports_now
from topics.cluster import Cluster
from topics.provision import admin_of

SHARED_KAFKA = "KAFKA_OF_THE_TESTS"
_shared = ExitStack()


def pytest_configure(config: pytest.Config) -> None:
    """Where several processes share the tests, they share one broker, too: the process that deals them out has it."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput") and SHARED_KAFKA not in os.environ:
        directory = _shared.enter_context(tempfile.TemporaryDirectory(prefix="tidings-kafka-"))
        os.environ[SHARED_KAFKA] = _shared.enter_context(EmbeddedBroker(Path(directory))).bootstrap


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several processes share the tests, what takes long begins first: none of them works alone at the end."""
    if hasattr(config, "workerinput"):
        folders = [config.rootpath / path for path in config.getini("testpaths")]
        items.sort(key=lambda item: [item.path.is_relative_to(folder) for folder in folders])  # the last folder first


def pytest_unconfigure() -> None:
    """Ends what was shared."""
    _shared.close()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The bootstrap servers of a real Kafka: the one at TIDINGS_KAFKA, or an embedded one in an empty directory."""
    existing = os.environ.get("TIDINGS_KAFKA") or os.environ.get(SHARED_KAFKA)
    if existing:
        yield existing
        return
    directory: Path = tmp_path_factory.mktemp("kafka")
    with EmbeddedBroker(directory) as broker:
        yield broker.bootstrap


@pytest.fixture(scope="session")
def sweep(kafka: str) -> Iterator[Callable[[str], None]]:
    """Deletes the topics with a prefix: clients that ask for all topics there are, which most do, are told of few."""
    with closing(admin_of(Cluster(kafka))) as admin:

        def delete(prefix: str) -> None:
            with suppress(KafkaError):  # it saves time, and nobody waits for it
                admin.delete_topics([topic for topic in admin.list_topics() if topic.startswith(prefix)])

        yield delete


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix for topics and groups that no other test has: `t1b2c3d4e-`."""
    sweep = request.getfixturevalue("sweep") if "kafka" in request.fixturenames else None
    prefix = f"t{uuid.uuid4().hex[:8]}-"
    yield prefix
    if sweep is not None:
        sweep(prefix)


@pytest.fixture
def free_ports() -> tuple[int, int]:
    """Two ports that are free now, for servers that come back at their address after a kill."""
    one, other = ports_now(2)
    return one, other


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of an empty PostgreSQL without a database name: the one at TIDINGS_TEST_POSTGRES, or one started here."""
    with server() as url:
        if url is None:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        yield url


@pytest.fixture
def postgres_databases(postgres_server: str) -> Iterator[Callable[[], str]]:
    """Makes fresh databases: each call gives the SQLAlchemy URL of another one."""
    admin = sqlalchemy.create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    made: list[str] = []

    def make() -> str:
        made.append(f"t{uuid.uuid4().hex[:12]}")
        with admin.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {made[-1]}")
        return f"{postgres_server}/{made[-1]}"

    yield make
    with admin.connect() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()


@pytest.fixture
def postgres(postgres_databases: Callable[[], str]) -> str:
    """The SQLAlchemy URL of a fresh database."""
    return postgres_databases()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], str]:
    """The URL of a fresh database by a name: what asks for it is tested on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        return lambda name: f"sqlite:///{tmp_path}/{name}.db"
    make: Callable[[], str] = request.getfixturevalue("postgres_databases")
    return lambda _name: make()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turns a skip into a failure where CI is set."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped although CI is set: {report.longrepr}"
    return report
