"""What integration tests may ask for beside Kafka: a real PostgreSQL."""

import uuid
from collections.abc import Iterator

import pytest
import sqlalchemy

from bench.postgres import server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of an empty PostgreSQL without a database name: the one at TIDINGS_TEST_POSTGRES, or one started here."""
    with server() as url:
        if url is None:
            pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
        yield url


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
