"""The first tables.

Names are compared byte by byte on every server. Each step is skipped when it was done: MySQL cannot roll tables back,
and a migration that was killed is simply run again.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json, LongText, Real, UtcTime, Word
from evertune.store.migrating import key, may, need, options, owner, unique

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    for name, columns in _TABLES.items():
        op.create_table(name, *columns(), if_not_exists=True, **options(rowid=name != "evertune_points"))
    for table, indices in _INDICES.items():
        present = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table)}
        for columns in indices:
            index = f"ix_{table}_{'_'.join(columns)}"
            if index not in present:
                op.create_index(index, table, list(columns))


_TABLES: dict[str, Any] = {
    "evertune_database": lambda: (
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=False),
        need("database_id", Word(32)),
        need("created", UtcTime()),
    ),
    "evertune_experiments": lambda: (
        key(),
        need("uid", Word(32)),
        need("namespace", Word(63)),
        need("name", Word(253)),
        need("state", Word(32)),
        need("trials", sa.Integer()),
        need("told_seq", sa.Integer()),
        need("pending", sa.Integer()),
        need("running", sa.Integer()),
        need("succeeded", sa.Integer()),
        need("failed", sa.Integer()),
        need("early_stopped", sa.Integer()),
        need("metrics_unavailable", sa.Integer()),
        need("killed", sa.Integer()),
        may("best_number", sa.Integer()),
        may("best_score", Real()),
        need("maximize", sa.Boolean()),
        need("parallel", sa.Integer()),
        may("max_trials", sa.Integer()),
        may("max_failed", sa.Integer()),
        need("seed", sa.BigInteger()),
        need("revision", sa.Integer()),
        need("algorithm", Word(255)),
        need("backend", Word(32)),
        may("home_id", Word(64)),
        need("workflow_id", Word(1000)),
        need("first_run_id", Word(64)),
        need("created", UtcTime()),
        may("started", UtcTime()),
        may("ended", UtcTime()),
        need("reason", LongText()),
        need("message", LongText()),
        need("settings", Json()),
        need("objective", Json()),
        need("space", Json()),
        need("context", Json()),
        need("manifest", Json()),
        unique("evertune_experiments", "namespace", "name"),
        unique("evertune_experiments", "uid"),
    ),
    "evertune_audit": lambda: (
        key(),
        owner("experiment_id", "evertune_experiments", "evertune_audit"),
        need("key", Word(255)),
        need("at", UtcTime()),
        need("actor", LongText()),
        need("action", LongText()),
        may("detail", Json()),
        unique("evertune_audit", "experiment_id", "key"),
    ),
    "evertune_requests": lambda: (
        key(),
        owner("experiment_id", "evertune_experiments", "evertune_requests"),
        need("request_no", sa.Integer()),
        need("k", sa.Integer()),
        need("revision", sa.Integer()),
        need("cut", sa.Integer()),
        need("first_number", sa.Integer()),
        need("answered", sa.Integer()),
        need("wait", sa.Boolean()),
        need("exhausted", sa.Boolean()),
        need("asked", UtcTime()),
        may("committed", UtcTime()),
        need("reason", LongText()),
        may("state", Json()),
        unique("evertune_requests", "experiment_id", "request_no"),
    ),
    "evertune_trials": lambda: (
        key(),
        owner("experiment_id", "evertune_experiments", "evertune_trials"),
        need("number", sa.Integer()),
        need("state", Word(32)),
        may("told_seq", sa.Integer()),
        may("score", Real()),
        may("objective_value", Real()),
        need("request_no", sa.Integer()),
        need("attempts", sa.Integer()),
        need("parameters", Json()),
        may("labels", Json()),
        may("meta", Json()),
        need("name", Word(300)),
        need("created", UtcTime()),
        may("started", UtcTime()),
        may("ended", UtcTime()),
        may("objective", LongText()),
        may("metrics", Json()),
        need("reason", LongText()),
        need("message", LongText()),
        unique("evertune_trials", "experiment_id", "number"),
        unique("evertune_trials", "experiment_id", "name"),
    ),
    "evertune_attempts": lambda: (
        key(),
        owner("trial_id", "evertune_trials", "evertune_attempts"),
        need("experiment_id", sa.Integer()),
        need("number", sa.Integer()),
        need("attempt", sa.Integer()),
        need("state", Word(32)),
        may("failure", Word(32)),
        need("charged", sa.Boolean()),
        need("again", sa.Boolean()),
        may("home_id", Word(64)),
        may("exit_code", sa.Integer()),
        may("signal", sa.Integer()),
        may("started", UtcTime()),
        may("ended", UtcTime()),
        need("reason", LongText()),
        need("message", LongText()),
        unique("evertune_attempts", "trial_id", "attempt"),
    ),
    "evertune_points": lambda: (
        owner("trial_id", "evertune_trials", "evertune_points", primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("metric", Word(512), primary_key=True),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        may("timestamp", Real()),
        need("value", LongText()),
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
