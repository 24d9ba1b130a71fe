"""Retrainings of live models, at most one open for each model, and their steps."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "retrainings",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("open_key", sa.String(64), unique=True),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("cause", sa.String(400), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("opened_at", moment, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("version", sa.Integer),
        sa.Column("result", sa.String(16)),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("finished_at", moment),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("host", sa.String(255)),
        sa.Column("pid", sa.Integer),
        sa.Column("pid_started", sa.Float),
        sa.Column("lease_until", moment),
    )
    op.create_index("retrainings_by_model", "retrainings", ["model", "opened_at"])
    op.create_table(
        "retraining_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("retraining_id", sa.String(32), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("retraining_events_by_retraining", "retraining_events", ["retraining_id", "id"])
