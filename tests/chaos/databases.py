"""The two databases, and what can be done to them: locked, taken away, copied, and an old copy put back.

Both are to be copied and put back while no role runs.
"""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing, contextmanager
from os import geteuid
from pathlib import Path

import sqlalchemy

from tidings.up_roles import free_ports


class Database(ABC):
    """One database of the test's own; `url` is SQLAlchemy's."""

    url: str

    @abstractmethod
    @contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else can write."""

    @abstractmethod
    def down(self) -> bool:
        """Take it away, if there is a server to stop."""

    @abstractmethod
    def up(self) -> None:
        """And give it back."""

    @abstractmethod
    def copy(self) -> None:
        """Keep it as it is now."""

    @abstractmethod
    def put_back(self) -> None:
        """As it was at the last `copy`."""

    @abstractmethod
    def close(self) -> None:
        """The end."""


class Lite(Database):
    """A file."""

    def __init__(self, folder: Path) -> None:
        self.path, self._old = folder / "tidings.db", folder / "old.db"
        self.url = f"sqlite:///{self.path}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=30, check_same_thread=False)) as held:
            held.execute("BEGIN EXCLUSIVE")
            yield
            held.execute("ROLLBACK")

    def down(self) -> bool:
        return False

    def up(self) -> None:
        """There is no server."""

    def close(self) -> None:
        """Nor anything to close."""

    def copy(self) -> None:
        self._old.unlink(missing_ok=True)
        with closing(sqlite3.connect(self.path, timeout=30)) as live, closing(sqlite3.connect(self._old)) as old:
            live.backup(old)

    def put_back(self) -> None:
        if self._old.exists():
            for suffix in ("-wal", "-shm"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
            fresh = self.path.with_suffix(".new")
            shutil.copy(self._old, fresh)
            fresh.replace(self.path)


class Postgres(Database):
    """Debian's server, as a child of the test, that refuses to run as root."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: int(p.parts[-3]))
        program = shutil.which("pg_ctl") or (str(found[-1]) if found else None)
        if program is None:
            raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
        self._program, self._user = program, "postgres" if geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="tidings-postgres-"))
        if self._user:
            shutil.chown(self._folder, self._user)
        (self._port,) = free_ports(1)
        self._run("initdb", "-o", "--auth=trust --username=tidings --no-sync --encoding=UTF8 --locale=C")
        self.up()
        self.url = f"postgresql+psycopg://tidings@127.0.0.1:{self._port}/live"
        self._admin = sqlalchemy.create_engine(
            f"postgresql+psycopg://tidings@127.0.0.1:{self._port}/postgres",
            isolation_level="AUTOCOMMIT",
            pool_pre_ping=True,
        )
        self._say("CREATE DATABASE live")

    @contextmanager
    def locked(self) -> Iterator[None]:
        engine = sqlalchemy.create_engine(self.url)
        with engine.begin() as held:
            held.exec_driver_sql("LOCK TABLE positions, notices, outbox IN ACCESS EXCLUSIVE MODE")
            yield
        engine.dispose()

    def down(self) -> bool:
        self._run("stop", "-w", "-m", "immediate")
        return True

    def up(self) -> None:
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c shared_buffers=16MB"
        self._run("start", "-w", "-l", f"{self._folder}/log", "-o", f"{options} -c fsync=off -c max_connections=100")

    def copy(self) -> None:
        self._say(
            "DROP DATABASE IF EXISTS old",
            "ALTER DATABASE live ALLOW_CONNECTIONS false",
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'live'",
            "CREATE DATABASE old TEMPLATE live",
            "ALTER DATABASE live ALLOW_CONNECTIONS true",
        )

    def put_back(self) -> None:
        if self._say("SELECT 1 FROM pg_database WHERE datname = 'old'"):
            self._say("DROP DATABASE live WITH (FORCE)", "CREATE DATABASE live TEMPLATE old")

    def close(self) -> None:
        self._admin.dispose()
        self._run("stop", "-w", "-m", "immediate")
        shutil.rmtree(self._folder)

    def _say(self, *statements: str) -> bool:
        found = False
        with self._admin.connect() as connection:
            for statement in statements:
                result = connection.exec_driver_sql(statement)
                found = result.returns_rows and result.first() is not None
        return found

    def _run(self, *arguments: str) -> None:
        subprocess.run(
            [self._program, "-D", f"{self._folder}/data", *arguments],
            user=self._user,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
        )
