"""Where deleted experiments ran in a cluster is remembered until nothing of them is left there."""

from __future__ import annotations

from alembic import op

from evertune.store.columns import Json, UtcTime, Word
from evertune.store.migrating import key, may, need, options, unique

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evertune_leftovers",
        key(),
        need("experiment_uid", Word(32)),
        may("place", Json()),
        need("deleted", UtcTime()),
        unique("evertune_leftovers", "experiment_uid"),
        if_not_exists=True,
        **options(),
    )
