"""What only a database server can do: several schemas, lost connections, refused logins."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from uuid import uuid4

import pytest
from sqlalchemy import Engine, create_engine, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import OperationalError

from evertune.errors import EnvironmentProblem, SchemaTooNewError, UnavailableError
from evertune.store import open_store
from evertune.store.engine import Database, parse_url
from evertune.store.models import Base
from evertune.store.schema import VERSION_TABLE
from evertune.testing.store.making import at_once, create, finish, suggest, with_trials

pytestmark = pytest.mark.slow  # starts two servers

OPEN = "import sys; from evertune.store import open_store; s = open_store(sys.argv[1]); print(s.database_id); s.close()"
KILL_OTHERS = {
    "mysql": "SELECT concat('KILL ', id) FROM information_schema.processlist WHERE db = :db AND id <> connection_id()",
    "postgresql": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE datname = :db AND pid <> pg_backend_pid()",
}


@pytest.fixture(params=["mariadb_url", "postgres_url"])
def server(request: pytest.FixtureRequest) -> URL:
    return make_url(request.getfixturevalue(request.param))


@pytest.fixture
def admin(server: URL) -> Iterator[Engine]:
    engine = create_engine(parse_url(server.render_as_string(hide_password=False)), isolation_level="AUTOCOMMIT")
    yield engine
    engine.dispose()


@pytest.fixture
def url(server: URL, admin: Engine) -> Iterator[str]:
    """An empty database of its own."""
    name = f"evertune_{uuid4().hex[:8]}"
    with admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.set(database=name).render_as_string(hide_password=False)
    # PostgreSQL notices that a client is gone when it gets round to it.
    force = " WITH (FORCE)" if server.drivername == "postgresql" else ""
    with admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


def cut_connections(admin: Engine, url: str) -> int:
    database = make_url(url).database
    with admin.connect() as connection:
        rows = connection.execute(text(KILL_OTHERS[make_url(url).drivername]), {"db": database}).scalars().all()
        for row in rows:
            if isinstance(row, str):
                with suppress(OperationalError):  # it has just left by itself
                    connection.exec_driver_sql(row)
    return len(rows)


def test_the_migrations_make_the_tables_of_the_models(url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    open_store(url).close()
    database = Database(parse_url(url))
    options = {"compare_type": False, "version_table": VERSION_TABLE}
    differences = database.read(
        lambda tx: compare_metadata(MigrationContext.configure(tx, opts=options), Base.metadata)
    )
    database.close()
    assert differences == []


def test_processes_that_start_at_once_migrate_once(url: str) -> None:
    command = [sys.executable, "-W", "error", "-c", OPEN, url]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0] * 3, outputs
    assert len({out for out, _ in outputs}) == 1


def test_a_migration_that_was_killed_half_way_is_completed(url: str) -> None:
    with open_store(url) as store:
        first = store.database_id
    database = Database(parse_url(url))
    for statement in (
        f"DELETE FROM {VERSION_TABLE}",
        "DELETE FROM evertune_database",
        "DROP TABLE evertune_series_points",
        "DROP TABLE evertune_origins",
        "DROP TABLE evertune_attempts",
    ):
        database.write(lambda tx, s=statement: tx.execute(text(s)))  # type: ignore[misc]
    database.close()
    with open_store(url) as store:
        assert store.database_id != first
        finish(store, with_trials(store, 1), 0, 0.5)


def test_a_newer_schema_is_refused(url: str) -> None:
    open_store(url).close()
    database = Database(parse_url(url))
    database.write(lambda tx: tx.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")))
    database.close()
    with pytest.raises(SchemaTooNewError, match="9999"):
        open_store(url)


def test_connections_that_the_server_cut_are_replaced_without_a_word(url: str, admin: Engine) -> None:
    with open_store(url) as store:
        uid = with_trials(store, 4)
        at_once([lambda: store.counts(uid) for _ in range(4)])  # several connections
        assert cut_connections(admin, url) >= 1
        assert [finish(store, uid, number, 0.5)[1] for number in range(3)] == [1, 2, 3]
        assert cut_connections(admin, url) >= 1
        results = at_once([lambda: finish(store, uid, 3, 0.75)[1] for _ in range(4)])
        assert results == [4] * 4
        suggest(store, uid, 1, [])


def test_a_database_or_user_that_the_server_does_not_know_is_one_sentence(server: URL) -> None:
    for wrong in (server.set(database="missing"), server.set(username="nobody", password="secret")):
        with pytest.raises(EnvironmentProblem) as refusal:
            open_store(wrong.render_as_string(hide_password=False))
        assert "refuses us" in refusal.value.message
        assert "secret" not in refusal.value.message
        assert "\n" not in refusal.value.message


def test_a_row_that_stays_locked_is_waited_for_and_then_one_sentence(
    url: str, admin: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evertune.store.engine.PATIENCE_S", 0.5)
    monkeypatch.setattr("evertune.store.engine._LOCK_TIMEOUT_S", 1)
    holder = create_engine(parse_url(url))
    with open_store(url) as store:
        uid = create(store).uid
        with holder.begin() as connection:
            connection.execute(text("SELECT id FROM evertune_experiments FOR UPDATE"))
            with pytest.raises(UnavailableError):
                store.open_request(uid, 0, 1, 1)
        assert store.open_request(uid, 0, 1, 1).cut == 0
    holder.dispose()
