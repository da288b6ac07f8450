"""Early stopping: how far it has read each attempt, its decisions, and the marks that trials are compared by."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json, LongText, Real, UtcTime
from evertune.store.migrating import key, may, need, options, owner, unique

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evertune_stopping",
        key(),
        owner("experiment_id", "evertune_experiments", "evertune_stopping"),
        need("number", sa.Integer()),
        need("attempt", sa.Integer()),
        need("series", Json()),
        may("memory", Json()),
        may("reported", UtcTime()),
        may("decided", UtcTime()),
        may("step", sa.BigInteger()),
        may("reason", LongText()),
        unique("evertune_stopping", "experiment_id", "number", "attempt"),
        if_not_exists=True,
        **options(),
    )
    op.create_table(
        "evertune_marks",
        owner("experiment_id", "evertune_experiments", "evertune_marks", primary_key=True),
        sa.Column("number", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("step", sa.BigInteger(), primary_key=True, autoincrement=False),
        need("counts", sa.Boolean()),
        need("value", Real()),
        if_not_exists=True,
        **options(rowid=False),
    )
    inspector = sa.inspect(op.get_bind())
    index, columns = "ix_evertune_marks_experiment_id_step_counts_value", ["experiment_id", "step", "counts", "value"]
    if index not in {known["name"] for known in inspector.get_indexes("evertune_marks")}:
        op.create_index(index, "evertune_marks", columns)
    columns = [str(column["name"]) for column in inspector.get_columns("evertune_experiments")]
    if "marked" not in columns:
        op.add_column("evertune_experiments", may("marked", sa.Integer()))
