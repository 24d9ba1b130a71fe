"""What became of each attempt at a slot, one run an attempt, and what a run cost."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "slot_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job", sa.String(64), nullable=False),
        sa.Column("slot", moment, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("host", sa.String(255)),
        sa.Column("pid", sa.Integer),
    )
    op.create_index("slot_events_by_slot", "slot_events", ["job", "slot", "id"])
    op.add_column("slots", sa.Column("parallel", sa.Integer))
    op.add_column("runs", sa.Column("cost", sa.Float))
    op.add_column("runs", sa.Column("failure", sa.String(24)))
    op.add_column("runs", sa.Column("environment", sa.JSON))
    op.drop_index("runs_by_job", "runs")
    op.create_index("runs_by_job", "runs", ["job", "slot", "attempt"], unique=True)
    op.create_index("runs_by_model", "runs", ["model", "started_at"])
