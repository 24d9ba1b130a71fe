"""Alerts, their events, the messages to send about them, and heartbeats."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    moment = sa.DateTime(timezone=True)
    op.create_table(
        "alerts",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(255), nullable=False),
        sa.Column("open_key", sa.String(255), unique=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("announced", sa.String(16), nullable=False),
        sa.Column("models", sa.JSON, nullable=False),
        sa.Column("signals", sa.JSON, nullable=False),
        sa.Column("opened_at", moment, nullable=False),
        sa.Column("updated_at", moment, nullable=False),
        sa.Column("closed_at", moment),
        sa.Column("acknowledged_at", moment),
        sa.Column("acknowledged_by", sa.String(255), nullable=False),
        sa.Column("snoozed_until", moment),
        sa.Column("escalated_at", moment),
        sa.Column("reopened_at", moment),
        sa.Column("reopenings", sa.Integer, nullable=False),
    )
    op.create_index("alerts_by_status", "alerts", ["status", "closed_at"])
    op.create_table(
        "alert_events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("alert_id", sa.String(32), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("severity", sa.String(16), nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("alert_events_by_alert", "alert_events", ["alert_id", "id"])
    op.create_table(
        "alert_deliveries",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("alerts", sa.JSON, nullable=False),
        sa.Column("place", sa.String(100), nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("not_before", moment, nullable=False),
        sa.Column("digest", sa.Boolean, nullable=False),
        sa.Column("digest_id", sa.String(32)),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("sent_at", moment),
        sa.Column("error", sa.Text),
    )
    op.create_index("alert_deliveries_by_status", "alert_deliveries", ["status", "not_before"])
    op.create_table(
        "heartbeats",
        sa.Column("part", sa.String(80), primary_key=True),
        sa.Column("at", moment, nullable=False),
        sa.Column("ok", sa.Boolean, nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
