"""By how much a trial misses its outcome constraints, before its score; and the spread of its replicates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json, Real
from evertune.store.migrating import may, need

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

OLD = "ix_evertune_trials_experiment_id_shortfall_score_told_seq"
NEW = "ix_evertune_trials_best"


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    for table, column in (
        ("evertune_trials", need("violation", Real(), server_default="0")),
        ("evertune_trials", may("spread", Json())),
        ("evertune_experiments", may("best_violation", Real())),
    ):
        if column.name not in {known["name"] for known in inspector.get_columns(table)}:
            op.add_column(table, column)
    indices = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("evertune_trials")}
    if NEW not in indices:
        columns = ["experiment_id", "violation", "shortfall", "score", "told_seq"]
        op.create_index(NEW, "evertune_trials", columns)
    if OLD in indices:
        op.drop_index(OLD, "evertune_trials")
