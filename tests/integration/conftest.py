"""What integration tests may ask for beside Kafka: a real PostgreSQL."""

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of an empty PostgreSQL without a database name: the one at TIDINGS_TEST_POSTGRES, or one started here."""
    if existing := os.environ.get("TIDINGS_TEST_POSTGRES"):
        yield existing.rstrip("/")
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: int(p.parts[-3]))
    program = shutil.which("pg_ctl") or (str(programs[-1]) if programs else None)
    if program is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    directory = tempfile.mkdtemp(prefix="tidings-postgres-")
    if user:
        shutil.chown(directory, user)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    data = f"{directory}/data"
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c shared_buffers=16MB"
    )

    def run(*arguments: str) -> None:
        subprocess.run(
            [program, "-D", data, *arguments], user=user, check=True, stdout=subprocess.DEVNULL, cwd=directory
        )

    try:
        run("initdb", "-o", "--auth=trust --username=tidings --no-sync --encoding=UTF8 --locale=C")
        run("start", "-w", "-l", f"{directory}/log", "-o", options)
        try:
            yield f"postgresql+psycopg://tidings@127.0.0.1:{port}"
        finally:
            run("stop", "-w", "-m", "immediate")
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def postgres(postgres_server: str) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh database."""
    name = f"t{uuid.uuid4().hex[:12]}"
    admin = sqlalchemy.create_engine(f"{postgres_server}/postgres", isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield f"{postgres_server}/{name}"
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    admin.dispose()
