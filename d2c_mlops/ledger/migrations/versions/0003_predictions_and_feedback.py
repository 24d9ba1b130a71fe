"""Predictions that services logged, and what became of them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("contract", sa.String(32), nullable=False),
        sa.Column("variant", sa.String(16), nullable=False),
        sa.Column("key", sa.String(200)),
        sa.Column("at", moment, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("outputs", sa.JSON, nullable=False),
        sa.Column("reasons", sa.JSON),
        sa.Column("caller", sa.String(64)),
        sa.Column("request_id", sa.String(64)),
    )
    op.create_index("predictions_by_key", "predictions", ["model", "key", "at"])
    op.create_index("predictions_by_time", "predictions", ["model", "at"])
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(80), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("prediction_id", sa.String(80)),
        sa.Column("key", sa.String(200)),
        sa.Column("at", moment, nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("value", sa.JSON),
        sa.Column("caller", sa.String(64)),
    )
    op.create_index("feedback_by_prediction", "feedback", ["prediction_id"])
    op.create_index("feedback_by_key", "feedback", ["model", "key", "at"])
