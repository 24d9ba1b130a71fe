"""Who started a run, and what a reader of its result has to know."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("runs", sa.Column("started_by", sa.String(255)))
    op.add_column("runs", sa.Column("notes", sa.JSON))
