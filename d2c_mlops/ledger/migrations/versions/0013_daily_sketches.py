"""Sketches of the predictions of each version and local day, added up off the request path."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.create_table(
        "daily_sketches",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("zone", sa.String(64), nullable=False),
        sa.Column("summed", sa.String(64), nullable=False),
        sa.Column("sketches", sa.JSON, nullable=False),
    )
