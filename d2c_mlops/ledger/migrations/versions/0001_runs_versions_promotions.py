"""Runs, versions and promotions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

moment = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "runs",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("runbook", sa.String(200), nullable=False),
        sa.Column("model", sa.String(64)),
        sa.Column("notebook", sa.Text, nullable=False),
        sa.Column("notebook_sha256", sa.String(64), nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("package_version", sa.String(64), nullable=False),
        sa.Column("git_commit", sa.String(64)),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("seed", sa.Integer),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("started_at", moment, nullable=False),
        sa.Column("ended_at", moment),
        sa.Column("cpu_seconds", sa.Float),
        sa.Column("peak_memory_bytes", sa.Float),
        sa.Column("outputs", sa.JSON, nullable=False),
        sa.Column("recorded", sa.JSON, nullable=False),
        sa.Column("error", sa.JSON),
        sa.Column("exit_code", sa.Integer),
        sa.Column("host", sa.String(255), nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("pid_started", sa.Float, nullable=False),
    )
    op.create_index("runs_by_start", "runs", ["started_at"])
    op.create_index("runs_by_status", "runs", ["status"])
    op.create_table(
        "versions",
        sa.Column("model", sa.String(64), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("created_at", moment, nullable=False),
        sa.Column("run_id", sa.String(64)),
        sa.Column("model_class", sa.Text, nullable=False),
        sa.Column("params", sa.JSON, nullable=False),
        sa.Column("contract", sa.JSON, nullable=False),
        sa.Column("charter", sa.JSON, nullable=False),
        sa.Column("evaluation", sa.JSON, nullable=False),
        sa.Column("inputs", sa.JSON, nullable=False),
        sa.Column("as_of", sa.String(10), nullable=False),
        sa.Column("package_version", sa.String(64), nullable=False),
        sa.Column("artifact_uri", sa.Text, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
    )
    op.create_table(
        "promotions",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("previous", sa.Integer),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("at", moment, nullable=False),
        sa.Column("by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("gate", sa.JSON, nullable=False),
    )
    op.create_index("promotions_by_model", "promotions", ["model", "id"])
