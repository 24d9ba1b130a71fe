"""What was decided upon predictions, by whom, when, and what came of it; which signed links were used."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("prediction_id", sa.String(80), nullable=False, unique=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("key", sa.String(200)),
        sa.Column("subject", sa.String(500), nullable=False),
        sa.Column("field", sa.String(64), nullable=False),
        sa.Column("proposed", sa.Text),
        sa.Column("edited", sa.Text),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16)),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("by", sa.String(255)),
        sa.Column("predicted_at", moment, nullable=False),
        sa.Column("proposed_at", moment, nullable=False),
        sa.Column("deadline_at", moment, nullable=False),
        sa.Column("notified_at", moment),
        sa.Column("decided_at", moment),
        sa.Column("applied_at", moment),
        sa.Column("dry_run", sa.Boolean, nullable=False),
        sa.Column("policy", sa.JSON, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("not_before", moment),
        sa.Column("claimed_until", moment),
        sa.Column("error", sa.Text),
    )
    op.create_index("decisions_by_status", "decisions", ["model", "status", "deadline_at"])
    op.create_index("decisions_by_subject", "decisions", ["model", "subject", "predicted_at"])
    op.create_index("decisions_by_verdict", "decisions", ["model", "verdict", "decided_at"])
    op.create_table(
        "decision_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("decision_id", sa.String(32), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("by", sa.String(255)),
        sa.Column("how", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("decision_events_by_decision", "decision_events", ["decision_id", "id"])
    op.create_table(
        "decision_links",
        sa.Column("nonce", sa.String(64), primary_key=True),
        sa.Column("decision_id", sa.String(32), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("used_at", moment, nullable=False),
    )
