"""What the migrations are written with: columns and table options that mean the same on every server.

Called by the files in migrations/versions only. What stands here is part of every migration that uses it: add, never
change.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op


def options(*, rowid: bool = True) -> dict[str, Any]:
    """Of `op.create_table`, for every server."""
    # The binary collations without padding: "loss" and "loss " are two names. Each server has its own word for it.
    mariadb = getattr(op.get_bind().dialect, "is_mariadb", False)
    options: dict[str, Any] = {"sqlite_with_rowid": rowid}
    for prefix in ("mysql", "mariadb"):
        options[f"{prefix}_engine"] = "InnoDB"
        options[f"{prefix}_charset"] = "utf8mb4"
        options[f"{prefix}_collate"] = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    return options


def key() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), primary_key=True)


def owner(column: str, target: str, table: str, **kwargs: Any) -> sa.Column[int]:
    key = sa.ForeignKey(f"{target}.id", ondelete="CASCADE", name=f"fk_{table}_{column}")
    return sa.Column(column, sa.Integer(), key, nullable=False, **kwargs)


def need(name: str, kind: Any, **kwargs: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **kwargs)


def may(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")
