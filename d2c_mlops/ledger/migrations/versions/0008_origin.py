"""Whether a prediction, and feedback, is that of a probe; rows of before do not say."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    for table in ("predictions", "feedback"):
        op.add_column(table, sa.Column("origin", sa.String(16)))
