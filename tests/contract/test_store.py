"""The store's contract on every database it speaks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evertune.store import Store, open_store
from evertune.testing.store import StoreContract


class TestSqliteStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        with open_store(f"sqlite:///{tmp_path / 'evertune.db'}") as store:
            yield store


@pytest.mark.slow
class TestMariadbStore(StoreContract):
    @pytest.fixture
    def store(self, mariadb_url: str) -> Iterator[Store]:
        with open_store(mariadb_url) as store:
            yield store


@pytest.mark.slow
class TestPostgresStore(StoreContract):
    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[Store]:
        with open_store(postgres_url) as store:
            yield store
