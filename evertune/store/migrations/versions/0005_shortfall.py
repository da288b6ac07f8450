"""How much less than the full resource a trial had, beside its score: the best is one with the most of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Real
from evertune.store.migrating import may, need

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

OLD = "ix_evertune_trials_experiment_id_score_told_seq"
NEW = "ix_evertune_trials_experiment_id_shortfall_score_told_seq"


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    if "shortfall" not in {column["name"] for column in inspector.get_columns("evertune_trials")}:
        op.add_column("evertune_trials", need("shortfall", Real(), server_default="0"))
    if "best_shortfall" not in {column["name"] for column in inspector.get_columns("evertune_experiments")}:
        op.add_column("evertune_experiments", may("best_shortfall", Real()))
    indices = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes("evertune_trials")}
    if NEW not in indices:
        op.create_index(NEW, "evertune_trials", ["experiment_id", "shortfall", "score", "told_seq"])
    if OLD in indices:
        op.drop_index(OLD, "evertune_trials")
