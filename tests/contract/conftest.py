"""One server of each kind for the whole session, started by the first test that needs it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="session")
def mariadb_url() -> Iterator[str]:
    if servers.mariadb_binaries() is None:
        pytest.skip("no MariaDB here: mariadbd and mariadb-install-db are not installed")
    with servers.mariadb() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    pytest.importorskip("psycopg", reason="no PostgreSQL driver here: psycopg is not installed")
    if servers.postgres_binaries() is None:
        pytest.skip("no PostgreSQL here: its server binaries are not installed")
    with servers.postgres() as url:
        yield url
