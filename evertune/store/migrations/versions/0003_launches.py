"""Attempts in clusters: what runs them is remembered longer than it lives, the pods of each, and what they wait for."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from evertune.store.columns import Json, LongText, Word
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
    op.create_table(
        "evertune_origins",
        key(),
        owner("attempt_id", "evertune_attempts", "evertune_origins"),
        need("origin", Word(64)),
        need("ordinal", sa.Integer()),
        unique("evertune_origins", "attempt_id", "origin"),
        if_not_exists=True,
        **options(),
    )
    columns = {column["name"] for column in sa.inspect(op.get_bind()).get_columns("evertune_attempts")}
    if "phase" not in columns:
        op.add_column("evertune_attempts", may("phase", LongText()))
