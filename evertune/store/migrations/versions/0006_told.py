"""What algorithms are told of a trial beside its objective stays as it was told, whatever is revised later."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json
from evertune.store.migrating import may

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    inspector = sa.inspect(op.get_bind())
    for table, column in (
        ("evertune_trials", may("steps", sa.Integer())),
        ("evertune_revisions", may("steps", sa.Integer())),
        ("evertune_revisions", may("metrics", Json())),
    ):
        if column.name not in {known["name"] for known in inspector.get_columns(table)}:
            op.add_column(table, column)
