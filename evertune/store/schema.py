"""Which schema a database has, and bringing it to ours. Called once per `open_store`.

The common case - the schema is ours already - is one query and does not import Alembic, which costs most of a second.
Migrations run under a lock of the database itself, so that processes starting at once migrate once; whoever is killed
in the middle leaves a database that the next one completes. Refuses a schema newer than HEAD.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, insert, inspect, select, text

from evertune.errors import EnvironmentProblem, SchemaTooNewError
from evertune.store.engine import Database
from evertune.store.models import DatabaseRow

HEAD = "0008"  # the newest file in migrations/versions
MIGRATIONS = Path(__file__).parent / "migrations"
VERSION_TABLE = "evertune_schema"
_LOCK_NAME = "evertune-migrate"
_LOCK_KEY = 0x65766572  # "ever"
_LOCK_WAIT_S = 60


def prepare(database: Database, *, create: bool) -> str:
    """Bring the schema to HEAD and return the database id. Without `create`, refuse when there is something to do."""
    version = database.read(_version)
    if version != HEAD:
        _refuse_newer(version, database.name)
        if not create:
            raise EnvironmentProblem(
                f"{database.name} holds no evertune database yet"
                if version is None
                else f"the database {database.name} has schema {version}, this evertune needs {HEAD}",
                "it is created or migrated when `evertune up` or a worker starts",
            )
        database.write(lambda connection: _migrate(connection, database.name))
    return database.read(lambda c: c.execute(select(DatabaseRow.database_id)).scalar_one())


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    version = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return None if version is None else str(version)


def _refuse_newer(version: str | None, name: str) -> None:
    if version is not None and not (version.isdigit() and int(version) <= int(HEAD)):
        raise SchemaTooNewError(
            f"the database {name} has schema {version}, this evertune knows {HEAD} at most",
            "install the evertune that wrote it or a newer one (pip install -U evertune)",
        )


def _migrate(connection: Connection, name: str) -> None:
    with _lock(connection):
        version = _version(connection)  # another process may have been here first
        _refuse_newer(version, name)
        if version != HEAD:
            _upgrade(connection)
        if connection.execute(select(DatabaseRow.id)).first() is None:
            row = {"id": 1, "database_id": secrets.token_hex(16), "created": datetime.now(UTC)}
            connection.execute(insert(DatabaseRow).values(row))


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _lock(connection: Connection) -> Iterator[None]:
    """SQLite holds its write lock since BEGIN IMMEDIATE; the servers have named locks, freed when we die."""
    dialect = connection.dialect.name
    if dialect == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        yield
    elif dialect in ("mysql", "mariadb"):
        # MySQL commits at every CREATE TABLE; the named lock belongs to the connection and outlives that. What came
        # after the last table is committed before the lock goes, or the next process would not see it.
        name = f"{_LOCK_NAME}-{connection.engine.url.database}"[:64]
        got = connection.execute(text("SELECT GET_LOCK(:name, :wait)"), {"name": name, "wait": _LOCK_WAIT_S}).scalar()
        if got != 1:
            raise EnvironmentProblem(f"another process migrates the database for more than {_LOCK_WAIT_S} s")
        try:
            yield
            connection.exec_driver_sql("COMMIT")
        finally:
            connection.execute(text("SELECT RELEASE_LOCK(:name)"), {"name": name})
    else:
        yield
