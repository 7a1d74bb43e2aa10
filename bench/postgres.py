"""A PostgreSQL of one run: the one at TIDINGS_TEST_POSTGRES, or Debian's, started in an empty directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidings.up_roles import free_ports


@contextmanager
def server() -> Iterator[str | None]:
    """The URL of an empty server without a database name; null where none is installed."""
    if existing := os.environ.get("TIDINGS_TEST_POSTGRES"):
        yield existing.rstrip("/")
        return
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda p: int(p.parts[-3]))
    program = shutil.which("pg_ctl") or (str(programs[-1]) if programs else None)
    if program is None:
        yield None
        return
    user = "postgres" if os.geteuid() == 0 else None  # the server refuses to run as root
    directory = tempfile.mkdtemp(prefix="tidings-postgres-")
    if user:
        shutil.chown(directory, user)
    (port,) = free_ports(1)
    options = (
        f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c shared_buffers=16MB"
    )

    def run(*arguments: str) -> None:
        subprocess.run(
            [program, "-D", f"{directory}/data", *arguments],
            user=user,
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=directory,
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
