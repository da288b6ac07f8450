"""Series with a running summary, points by series and with a step, revised verdicts, how attempts are being ended.

The points of older databases are copied and summed up; until that is done their table stays, so that a migration that
was killed begins again with all of them.
"""

from __future__ import annotations

import itertools

import sqlalchemy as sa
from alembic import op

from evertune.domain.metrics import Point
from evertune.store import points
from evertune.store.columns import LongText, Real, Word
from evertune.store.migrating import key, may, need, options, owner, unique

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

AT_ONCE = 5000  # points of one series


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    op.create_table(
        "evertune_series",
        key(),
        owner("trial_id", "evertune_trials", "evertune_series"),
        need("attempt", sa.Integer()),
        need("metric", Word(512)),
        need("points", sa.BigInteger()),
        need("last_seq", sa.BigInteger()),
        may("low", Real()),
        may("low_seq", sa.BigInteger()),
        may("low_text", LongText()),
        may("high", Real()),
        may("high_seq", sa.BigInteger()),
        may("high_text", LongText()),
        may("latest_timestamp", Real()),
        need("latest_seq", sa.BigInteger()),
        need("latest_text", LongText()),
        unique("evertune_series", "trial_id", "attempt", "metric"),
        if_not_exists=True,
        **options(),
    )
    op.create_table(
        "evertune_series_points",
        owner("series_id", "evertune_series", "evertune_series_points", primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger(), primary_key=True, autoincrement=False),
        may("timestamp", Real()),
        need("value", LongText()),
        may("step", sa.BigInteger()),
        if_not_exists=True,
        **options(rowid=False),
    )
    op.create_table(
        "evertune_revisions",
        key(),
        owner("trial_id", "evertune_trials", "evertune_revisions"),
        need("experiment_id", sa.Integer()),
        need("told_seq", sa.Integer()),
        need("superseded", sa.Integer()),
        need("state", Word(32)),
        may("objective_value", Real()),
        unique("evertune_revisions", "trial_id", "told_seq"),
        if_not_exists=True,
        **options(),
    )
    indices = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("evertune_revisions")}
    if "ix_evertune_revisions_experiment_id_superseded" not in indices:
        op.create_index(
            "ix_evertune_revisions_experiment_id_superseded", "evertune_revisions", ["experiment_id", "superseded"]
        )
    columns = {column["name"] for column in inspector.get_columns("evertune_attempts")}
    if "collected" not in columns:
        op.add_column("evertune_attempts", need("collected", sa.Boolean(), server_default=sa.false()))
        # All of them read by the worker itself, to the end.
        op.execute(sa.text("UPDATE evertune_attempts SET collected = TRUE WHERE state <> 'Running'"))
    if "stop" not in columns:
        op.add_column("evertune_attempts", may("stop", LongText()))
    if inspector.has_table("evertune_points"):
        _copy_points()
        op.drop_table("evertune_points")


def _copy_points() -> None:
    tx = op.get_bind()
    tx.execute(sa.text("DELETE FROM evertune_series_points"))
    tx.execute(sa.text("DELETE FROM evertune_series"))
    old = sa.table(
        "evertune_points",
        *(sa.column(name) for name in ("trial_id", "attempt", "metric", "seq", "timestamp", "value")),
    ).c
    known = sa.select(old.trial_id, old.attempt).distinct()
    for trial, attempt in tx.execute(known).all():
        query = sa.select(old.metric, old.value, old.seq, old.timestamp)
        query = query.where(old.trial_id == trial, old.attempt == attempt).order_by(old.metric, old.seq)
        rows = iter(tx.execute(query).all())
        while chunk := list(itertools.islice(rows, AT_ONCE)):
            points.add(tx, trial, attempt, [Point(*row) for row in chunk])
