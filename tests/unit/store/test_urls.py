"""What counts as the URL of a database, and what is said about one that does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from evertune.errors import EnvironmentProblem, UnavailableError, UsageError
from evertune.store import open_store
from evertune.store.engine import parse_url
from tests.ports import free_port


@pytest.mark.parametrize(
    ("text", "drivername"),
    [
        ("sqlite:////var/lib/evertune.db", "sqlite"),
        ("mysql://u:p@db/evertune", "mysql+pymysql"),
        ("mariadb://u:p@db/evertune", "mariadb+pymysql"),
        ("mysql+pymysql://u:p@db/evertune", "mysql+pymysql"),
        ("postgres://u:p@db/evertune", "postgresql+psycopg"),
        ("postgresql://u:p@db:5433/evertune?sslmode=require", "postgresql+psycopg"),
    ],
)
def test_a_url_without_a_driver_gets_ours(text: str, drivername: str) -> None:
    assert parse_url(text).drivername == drivername


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("/home/ada/evertune.db", "cannot be read"),
        ("", "cannot be read"),
        ("oracle://u:p@db/evertune", "no driver for 'oracle'"),
        ("postgresql+asyncpg://u:p@db/evertune", "no driver for 'postgresql+asyncpg'"),
        ("sqlite://", "must be a file"),
        ("sqlite:///:memory:", "must be a file"),
        ("mysql://u:secret@db", "names no database"),
    ],
)
def test_a_url_that_cannot_be_used_gets_one_sentence_and_a_mend(text: str, says: str) -> None:
    with pytest.raises(UsageError) as refusal:
        open_store(text)
    assert says in refusal.value.message
    assert "secret" not in refusal.value.message
    assert refusal.value.hint


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "postgresql"])
def test_a_server_that_is_not_there_is_unavailable_in_one_sentence(scheme: str) -> None:
    with pytest.raises(UnavailableError) as outage:
        open_store(f"{scheme}://ada:secret@127.0.0.1:{free_port()}/evertune")
    message = outage.value.message
    assert message.startswith(f"the database {scheme}://ada:***@127.0.0.1:")
    assert "refused" in message
    assert "secret" not in message
    assert "\n" not in message
    assert outage.value.retryable


def test_a_database_that_does_not_exist_yet_is_not_created_when_only_reading(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="there is no database"):
        open_store(f"sqlite:///{tmp_path}/evertune.db", create=False)
    assert not list(tmp_path.iterdir())
