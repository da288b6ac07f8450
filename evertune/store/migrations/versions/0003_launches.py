"""What runs attempts in clusters is remembered longer than its objects live, and what an attempt waits for is shown."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json, LongText
from evertune.store.migrating import key, may, need, options, owner, unique

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "evertune_launches",
        key(),
        owner("experiment_id", "evertune_experiments", "evertune_launches"),
        need("number", sa.Integer()),
        need("attempt", sa.Integer()),
        may("place", Json()),
        may("stop", LongText()),
        may("ending", Json()),
        unique("evertune_launches", "experiment_id", "number", "attempt"),
        if_not_exists=True,
        **options(),
    )
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("evertune_attempts")}
    if "phase" not in columns:
        op.add_column("evertune_attempts", may("phase", LongText()))
