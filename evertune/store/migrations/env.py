"""Alembic's entry point: migrate on the connection that `evertune.store.schema` holds under its lock."""

from __future__ import annotations

from alembic import context

from evertune.store.models import Base
from evertune.store.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"], target_metadata=Base.metadata, version_table=VERSION_TABLE
)
context.run_migrations()
