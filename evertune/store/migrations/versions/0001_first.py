"""The first tables.

Names are compared byte by byte on every server. Each step is skipped when it was done: MySQL cannot roll tables back,
and a migration that was killed is simply run again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json, LongText, Real, UtcTime, Word

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, columns in _TABLES.items():
        op.create_table(name, *columns(), if_not_exists=True, **_options(name))
    for table, indices in _INDICES.items():
        present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
        for columns in indices:
            index = f"ix_{table}_{'_'.join(columns)}"
            if index not in present:
                op.create_index(index, table, list(columns))


def _options(name: str) -> dict[str, Any]:
    # The binary collations without padding: "loss" and "loss " are two names. Each server has its own word for it.
    mariadb = getattr(op.get_bind().dialect, "is_mariadb", False)
    options: dict[str, Any] = {"sqlite_with_rowid": name != "evertune_points"}
    for prefix in ("mysql", "mariadb"):
        options[f"{prefix}_engine"] = "InnoDB"
        options[f"{prefix}_charset"] = "utf8mb4"
        options[f"{prefix}_collate"] = "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"
    return options


def _key() -> sa.Column[int]:
    return sa.Column("id", sa.Integer(), primary_key=True)


def _owner(column: str, target: str, table: str, **kwargs: Any) -> sa.Column[int]:
    key = sa.ForeignKey(f"{target}.id", ondelete="CASCADE", name=f"fk_{table}_{column}")
    return sa.Column(column, sa.Integer(), key, nullable=False, **kwargs)


def _need(name: str, kind: Any, **kwargs: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False, **kwargs)


def _may(name: str, kind: Any) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=True)


def _unique(table: str, *columns: str) -> sa.UniqueConstraint:
    return sa.UniqueConstraint(*columns, name=f"uq_{table}_{'_'.join(columns)}")


_TABLES: dict[str, Any] = {
    "evertune_database": lambda: (
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        _need("database_id", Word(32)),
        _need("created", UtcTime()),
    ),
    "evertune_experiments": lambda: (
        _key(),
        _need("uid", Word(32)),
        _need("namespace", Word(63)),
        _need("name", Word(253)),
        _need("state", Word(32)),
        _need("trials", sa.Integer()),
        _need("told_seq", sa.Integer()),
        _need("pending", sa.Integer()),
        _need("running", sa.Integer()),
        _need("succeeded", sa.Integer()),
        _need("failed", sa.Integer()),
        _need("early_stopped", sa.Integer()),
        _need("metrics_unavailable", sa.Integer()),
        _need("killed", sa.Integer()),
        _may("best_number", sa.Integer()),
        _may("best_score", Real()),
        _need("maximize", sa.Boolean()),
        _need("parallel", sa.Integer()),
        _may("max_trials", sa.Integer()),
        _may("max_failed", sa.Integer()),
        _need("seed", sa.BigInteger()),
        _need("revision", sa.Integer()),
        _need("algorithm", Word(255)),
        _need("backend", Word(32)),
        _may("home_id", Word(64)),
        _need("workflow_id", Word(1000)),
        _need("first_run_id", Word(64)),
        _need("created", UtcTime()),
        _may("started", UtcTime()),
        _may("ended", UtcTime()),
        _need("reason", LongText()),
        _need("message", LongText()),
        _need("settings", Json()),
        _need("objective", Json()),
        _need("space", Json()),
        _need("context", Json()),
        _need("manifest", Json()),
        _unique("evertune_experiments", "namespace", "name"),
        _unique("evertune_experiments", "uid"),
    ),
    "evertune_audit": lambda: (
        _key(),
        _owner("experiment_id", "evertune_experiments", "evertune_audit"),
        _need("key", Word(255)),
        _need("at", UtcTime()),
        _need("actor", LongText()),
        _need("action", LongText()),
        _may("detail", Json()),
        _unique("evertune_audit", "experiment_id", "key"),
    ),
    "evertune_requests": lambda: (
        _key(),
        _owner("experiment_id", "evertune_experiments", "evertune_requests"),
        _need("request_no", sa.Integer()),
        _need("k", sa.Integer()),
        _need("revision", sa.Integer()),
        _need("cut", sa.Integer()),
        _need("first_number", sa.Integer()),
        _need("answered", sa.Integer()),
        _need("wait", sa.Boolean()),
        _need("exhausted", sa.Boolean()),
        _need("asked", UtcTime()),
        _may("committed", UtcTime()),
        _need("reason", LongText()),
        _may("state", Json()),
        _unique("evertune_requests", "experiment_id", "request_no"),
    ),
    "evertune_trials": lambda: (
        _key(),
        _owner("experiment_id", "evertune_experiments", "evertune_trials"),
        _need("number", sa.Integer()),
        _need("state", Word(32)),
        _may("told_seq", sa.Integer()),
        _may("score", Real()),
        _may("objective_value", Real()),
        _need("request_no", sa.Integer()),
        _need("attempts", sa.Integer()),
        _need("parameters", Json()),
        _may("labels", Json()),
        _may("meta", Json()),
        _need("name", Word(300)),
        _need("created", UtcTime()),
        _may("started", UtcTime()),
        _may("ended", UtcTime()),
        _may("objective", LongText()),
        _may("metrics", Json()),
        _need("reason", LongText()),
        _need("message", LongText()),
        _unique("evertune_trials", "experiment_id", "number"),
        _unique("evertune_trials", "experiment_id", "name"),
    ),
    "evertune_attempts": lambda: (
        _key(),
        _owner("trial_id", "evertune_trials", "evertune_attempts"),
        _need("experiment_id", sa.Integer()),
        _need("number", sa.Integer()),
        _need("attempt", sa.Integer()),
        _need("state", Word(32)),
        _may("failure", Word(32)),
        _need("charged", sa.Boolean()),
        _need("again", sa.Boolean()),
        _may("home_id", Word(64)),
        _may("exit_code", sa.Integer()),
        _may("signal", sa.Integer()),
        _may("started", UtcTime()),
        _may("ended", UtcTime()),
        _need("reason", LongText()),
        _need("message", LongText()),
        _unique("evertune_attempts", "trial_id", "attempt"),
    ),
    "evertune_points": lambda: (
        _owner("trial_id", "evertune_trials", "evertune_points", primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("metric", Word(512), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        _may("timestamp", Real()),
        _need("value", LongText()),
    ),
}

_INDICES: dict[str, tuple[tuple[str, ...], ...]] = {
    "evertune_experiments": (("state",),),
    "evertune_trials": (
        ("experiment_id", "told_seq"),
        ("experiment_id", "score", "told_seq"),
        ("experiment_id", "state", "number"),
    ),
    "evertune_attempts": (("state", "home_id", "experiment_id"),),
}
