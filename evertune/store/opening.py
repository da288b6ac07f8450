"""How a process comes to its `Store`: by a URL, or by its settings. Brings the schema to ours on the way."""

from __future__ import annotations

from evertune.errors import EnvironmentProblem
from evertune.settings import Settings
from evertune.store import schema
from evertune.store.engine import Database, Durability, parse_url
from evertune.store.repository import Store


def open_store(url: str, *, create: bool = True, durability: Durability = "normal") -> Store:
    """Open the database at `url` and bring its schema to ours (with `create`; else refuse when that is needed).

    `durability="full"` makes SQLite survive a power cut at the price of an fsync per transaction; the servers have
    settings of their own for that. Raises UsageError for a bad URL, EnvironmentProblem for a file or server that
    cannot be used, UnavailableError for one that cannot be reached, SchemaTooNewError for a newer schema.
    """
    database = Database(parse_url(url), durability)
    try:
        if not create and not database.exists():
            raise EnvironmentProblem(
                f"there is no database {database.name} yet", "`evertune up` or the first experiment creates it"
            )
        return Store(database, schema.prepare(database, create=create))
    except BaseException:
        database.close()
        raise


def store_of(settings: Settings, *, create: bool = True) -> Store:
    """The store that a process was told of by its settings. Raises as `open_store`."""
    return open_store(settings.database_url, create=create, durability=settings.durability)
