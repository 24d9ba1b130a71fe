"""Jobs, their slots, and which slot a run was for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("runs", sa.Column("job", sa.String(64)))
    op.add_column("runs", sa.Column("slot", moment))
    op.add_column("runs", sa.Column("attempt", sa.Integer))
    op.create_index("runs_by_job", "runs", ["job", "slot"])
    op.create_table(
        "jobs",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("since", moment, nullable=False),
        sa.Column("paused", sa.Boolean, nullable=False),
    )
    op.create_table(
        "slots",
        sa.Column("job", sa.String(64), primary_key=True),
        sa.Column("slot", moment, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("host", sa.String(255)),
        sa.Column("pid", sa.Integer),
        sa.Column("pid_started", sa.Float),
        sa.Column("heartbeat_at", moment),
        sa.Column("changed_at", moment, nullable=False),
    )
    op.create_index("slots_by_status", "slots", ["status", "not_before"])
